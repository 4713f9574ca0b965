interface Props {
  label: string;
  name: string;
  /** Whether there is none without a name. */
  required?: boolean;
  onSave: (name: string) => void;
  onEnd: () => void;
}

/** Stands where the name stood; Escape leaves it as it was. */
export function Rename({ label, name, required, onSave, onEnd }: Props) {
  const save = (event: SubmitEvent) => {
    event.preventDefault();
    const given = `${new FormData(event.currentTarget as HTMLFormElement).get("name")}`.trim();
    if (given || !required) onSave(given);
    onEnd();
  };
  const press = (event: KeyboardEvent) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    onEnd();
  };
  return (
    <form class="rename" onSubmit={save} onKeyDown={press}>
      <input name="name" aria-label={label} maxLength={200} defaultValue={name} ref={(input) => input?.select()} />
      <button class="primary">Save</button>
      <button type="button" class="quiet" onClick={onEnd}>
        Cancel
      </button>
    </form>
  );
}
