// Light or dark: as the system has it, until somebody says otherwise.

import { effect, signal } from "@preact/signals";

const KEY = "throughline.theme";
const system = matchMedia("(prefers-color-scheme: dark)");

const systemIsDark = signal(system.matches);
system.addEventListener("change", ({ matches }) => (systemIsDark.value = matches));

const chosen = signal(localStorage.getItem(KEY));

export const isDark = () => (chosen.value ? chosen.value === "dark" : systemIsDark.value);

export function toggleTheme(): void {
  const wanted = isDark() ? "light" : "dark";
  // Back at what the system says, the page follows it again.
  const follows = (wanted === "dark") === systemIsDark.value;
  chosen.value = follows ? null : wanted;
  if (follows) localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, wanted);
}

effect(() => {
  if (chosen.value) document.documentElement.dataset["theme"] = chosen.value;
  else delete document.documentElement.dataset["theme"];
});
