import { isDark, toggleTheme } from "../theme";
import { IconButton } from "./Icon";

export function ThemeButton() {
  return (
    <IconButton
      icon={isDark() ? "sun" : "moon"}
      label={isDark() ? "Light colours" : "Dark colours"}
      onClick={toggleTheme}
    />
  );
}
