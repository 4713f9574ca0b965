import { render } from "preact";
import { App } from "./components/App";
import { askForDevelopmentToken, takeTokenFromAddress, token } from "./session";

takeTokenFromAddress();
if (!token.value) await askForDevelopmentToken();
render(<App />, document.getElementById("page")!);
