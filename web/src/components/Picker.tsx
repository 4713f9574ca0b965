import { agents, hasDefault, providers } from "../catalogue";
import { choice, choose, loading, sending } from "../chat";

/** Which agent and which model answer from the next message on. */
export function Picker() {
  return (
    <>
      {agents.value.length > 0 && <AgentPicker />}
      <ModelPicker />
    </>
  );
}

function AgentPicker() {
  // An agent comes with its own model, which one of the conversation would override.
  const pick = (id: string) => choose({ agentId: id || null, provider: null, model: null });
  return (
    <select
      aria-label="Agent"
      disabled={loading.value || sending.value}
      value={choice.value.agentId ?? ""}
      onChange={(event) => void pick(event.currentTarget.value)}
    >
      <option value="">No agent</option>
      {agents.value.map(({ id, name }) => (
        <option key={id} value={id}>
          {name}
        </option>
      ))}
    </select>
  );
}

/** A model as one value: names of providers have no slash. */
const join = (provider: string, model: string) => `${provider}/${model}`;

function ModelPicker() {
  const { agentId, provider, model } = choice.value;
  const chosen = provider && model ? join(provider, model) : "";
  const isListed = providers.value.some(({ name, models }) => name === provider && models.includes(model ?? ""));
  const pick = (value: string) => {
    const slash = value.indexOf("/");
    return choose(
      value ? { provider: value.slice(0, slash), model: value.slice(slash + 1) } : { provider: null, model: null },
    );
  };
  return (
    <select
      aria-label="Model"
      disabled={loading.value || sending.value}
      value={chosen}
      onChange={(event) => void pick(event.currentTarget.value)}
    >
      {(agentId || hasDefault.value || !chosen) && <option value="">{agentId ? "The agent's model" : "Default model"}</option>}
      {chosen && !isListed && <option value={chosen}>{model}</option>}
      {providers.value.map(({ name, models }) => (
        <optgroup key={name} label={name}>
          {models.map((of) => (
            <option key={of} value={join(name, of)}>
              {of}
            </option>
          ))}
        </optgroup>
      ))}
    </select>
  );
}
