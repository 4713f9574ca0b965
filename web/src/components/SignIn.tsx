import { useSignal } from "@preact/signals";
import { askForDevelopmentToken, hasLeft, refusal, signIn } from "../session";
import { isSomethingOwed } from "../unsent";

export function SignIn() {
  const wrong = useSignal(false);
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const given = new FormData(event.currentTarget as HTMLFormElement).get("token");
    wrong.value = !signIn(`${given}`);
  };
  const askAgain = async () => {
    if (await askForDevelopmentToken()) location.reload();
    else refusal.value = "This server gives no token by itself.";
  };
  return (
    <main class="sign-in">
      <h1>Throughline</h1>
      <form onSubmit={submit}>
        <label for="token">Your token</label>
        <input
          id="token"
          name="token"
          type="password"
          autocomplete="off"
          required
          autofocus
          aria-describedby="token-help"
        />
        <button class="primary">Sign in</button>
        {hasLeft() && (
          <button type="button" onClick={() => void askAgain()}>
            Sign in on this machine
          </button>
        )}
        <p id="token-help" class="faint" role="status">
          {wrong.value
            ? "This is no token: it has three parts, with dots between them."
            : refusal.value || "It stays in this browser."}
          {isSomethingOwed() && " What you have written is kept here, and sent once you have signed in again."}
        </p>
      </form>
    </main>
  );
}
