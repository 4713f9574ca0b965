import { useSignal } from "@preact/signals";
import { keepToken, refusal } from "../session";

export function SignIn() {
  const wrong = useSignal(false);
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const given = new FormData(event.currentTarget as HTMLFormElement).get("token");
    wrong.value = !keepToken(`${given}`);
    // Whatever the page knew, it knew from another token.
    if (!wrong.value) location.reload();
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
        <p id="token-help" class="faint" role="status">
          {wrong.value
            ? "This is no token: it has three parts, with dots between them."
            : refusal.value || "It stays in this browser."}
        </p>
      </form>
    </main>
  );
}
