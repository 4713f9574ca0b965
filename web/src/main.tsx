import { render } from "preact";
import { App } from "./components/App";
import { askForDevelopmentToken, hasLeft, keepToken, signIn, takeTokenFromAddress, token } from "./session";

takeTokenFromAddress(keepToken);
// A link that is opened in this tab.
addEventListener("hashchange", () => takeTokenFromAddress(signIn));
if (!token.value && !hasLeft()) await askForDevelopmentToken();
render(<App />, document.getElementById("page")!);
