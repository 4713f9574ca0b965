import * as ai from "ai";
import { Chat } from "@ai-sdk/react";
import { drive } from "../ai_sdk_driver.mjs";

await drive(ai, Chat);
