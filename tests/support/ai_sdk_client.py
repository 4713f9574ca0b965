"""The AI SDK's reader of chunks, in so far as it can go wrong; the packages themselves are in tests/clients."""

from typing import Any

import msgspec

from common.model.ui_messages import Chunk


class SdkClient:
    """What `processUIMessageStream` of the package does with chunks, and what it throws at."""

    def __init__(self) -> None:
        self.id = ""
        self.parts: list[dict[str, Any]] = []
        self.open: dict[str, dict[str, Any]] = {}
        self.ended_by = ""

    def read(self, frames: bytes) -> "SdkClient":
        for frame in frames.decode().split("\n\n")[:-1]:
            text = frame.removeprefix("data: ")
            assert self.ended_by != "[DONE]", text
            if text == "[DONE]":
                self.ended_by = text
            else:
                chunk = msgspec.json.decode(text)
                assert None not in chunk.values(), chunk
                msgspec.convert(chunk, Chunk)
                self._take(**chunk)
        return self

    def _take(self, type: str, **chunk: Any) -> None:
        assert self.ended_by == "", "nothing is read after the end"
        match type.split("-"):
            case ["start"]:
                self.id = chunk["messageId"]
            case ["start", "step"]:
                self.parts.append({"type": "step-start"})
            case ["reset", "step"]:
                del self.parts[self._step() :]
                self.open.clear()
            case ["text" | "reasoning" as kind, place]:
                self._take_text(kind, place, **chunk)
            case ["tool", *place]:
                self._take_call(" ".join(place), chunk)
            case ["finish"] | ["error"] | ["abort"]:
                self.ended_by = type

    def _take_text(self, kind: str, place: str, id: str, delta: str = "") -> None:
        if place == "start":
            assert id not in self.open
            self.parts.append({"type": kind, "text": ""})
            self.open[id] = self.parts[-1]
        self.open[id]["text"] += delta
        if place == "end":
            del self.open[id]

    def _take_call(self, place: str, chunk: dict[str, Any]) -> None:
        assert chunk.get("dynamic") or place == "input delta", "version 5 takes it for one with types"
        match place:
            case "input start":
                self._call(chunk)["state"] = "input-streaming"
            case "input delta":
                assert self._find(chunk["toolCallId"])["state"] == "input-streaming"
            case "input available":
                self._call(chunk).update(state="input-available", input=chunk["input"])
            case "output available":
                self._find(chunk["toolCallId"]).update(state="output-available", output=chunk["output"])
            case "output error":
                self._find(chunk["toolCallId"]).update(state="output-error", errorText=chunk["errorText"])

    def _step(self) -> int:
        return max((at for at, part in enumerate(self.parts) if part["type"] == "step-start"), default=-1) + 1

    def _find(self, call_id: str) -> dict[str, Any]:
        return next(part for part in reversed(self.parts) if part.get("toolCallId") == call_id)

    def _call(self, chunk: dict[str, Any]) -> dict[str, Any]:
        """The call's part in the current step, new or not."""
        assert chunk["providerExecuted"], "the client would run it itself"
        for part in self.parts[self._step() :]:
            if part.get("toolCallId") == chunk["toolCallId"]:
                part.pop("errorText", None)
                return part
        named = {name: chunk[name] for name in ("toolName", "toolCallId", "providerExecuted")}
        self.parts.append({"type": "dynamic-tool", **named})
        return self.parts[-1]
