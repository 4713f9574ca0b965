import { render } from "preact";
import { askForDevelopmentToken, hasLeft, keepToken, signIn, takeTokenFromAddress, token } from "../session";
import { Operations } from "./Operations";

takeTokenFromAddress(keepToken);
addEventListener("hashchange", () => takeTokenFromAddress(signIn));
if (!token.value && !hasLeft()) await askForDevelopmentToken();
render(<Operations />, document.getElementById("page")!);
