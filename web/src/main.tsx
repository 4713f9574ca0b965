import { render } from "preact";
import { App } from "./components/App";
import { askForDevelopmentToken, hasLeft, keepToken, saveToken, takeTokenFromAddress, token } from "./session";

takeTokenFromAddress(keepToken);
// A link that is opened in this tab: whatever the page knows, it knows from another token.
addEventListener("hashchange", () => takeTokenFromAddress(saveToken) && location.reload());
if (!token.value && !hasLeft()) await askForDevelopmentToken();
render(<App />, document.getElementById("page")!);
