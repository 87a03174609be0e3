"""Scenarios: examples inside a rule file that say which calls it allows and denies. Read here, run elsewhere."""

from aios.guard.language.formulas import FormulaReader
from aios.guard.language.lexer import Span, Token
from aios.guard.language.syntax import Call, Step

_WORDS = {"true": True, "false": False, "null": None}
_STEPS = ("allow", "deny", "ok", "err", "lost", "user", "say", "confirm", "wait")


class ScenarioParser(FormulaReader):
    """steps and the JSON values in them."""

    def steps(self) -> tuple[Step, ...]:
        """step { step }"""
        found = [self._step()]
        while self.here.kind == "keyword" and self.here.text in _STEPS and not self._is_declaration():
            found.append(self._step())
        return tuple(found)

    def _is_declaration(self) -> bool:
        # `user(` opens both a step and a declaration; only parameters have a colon behind the first name.
        ahead = self._tokens[self._index + 1 : self._index + 4]
        return self.here.text == "user" and len(ahead) == 3 and ahead[2].text == ":"

    def _step(self) -> Step:
        token = self.here
        if token.kind != "keyword" or token.text not in _STEPS:
            self.wrong("a step begins with allow, deny, ok, err, lost, user, say, confirm or wait")
        if token.text in ("user", "say"):
            event = self.event()
            return Step(token.text, event.call, at=token.at)
        self.step()
        if token.text in ("allow", "deny"):
            return self._expectation(token)
        if token.text == "confirm":
            return self._confirmation(token.at)
        if token.text == "wait":
            if self.here.kind != "duration":
                self.wrong("'wait' takes a duration (10m); calls are made, not waited for")
            return Step("wait", value=self.extent().amount, at=token.at)
        return Step(token.text, value=self._json() if self._is_json() else None, at=token.at)

    def _expectation(self, token: Token) -> Step:
        call = Call("finish", (), self.here.at) if self.take("finish") else self.call()
        by = self.names() if self.take("by") else ()
        return Step(token.text, call, by, None, token.at)

    def _confirmation(self, at: Span) -> Step:
        if self.is_at("("):
            return Step("confirm", Call("confirm", self._args(), at), at=at)
        call = self.call()
        by = (self.string(),) if self.take("by") else ()
        return Step("confirm", call, by, None, at)

    def _is_json(self) -> bool:
        return self.here.kind in ("string", "number") or self.here.text in ("{", "[", "true", "false", "null", "-")

    def _json(self) -> object:
        self.deeper()
        value = self._value()
        self.shallower()
        return value

    def _value(self) -> object:
        token = self.here
        if token.kind == "string":
            return self.string()
        if self.take("{"):
            return self._object()
        if self.take("["):
            return self._list()
        if token.text in _WORDS:
            self.step()
            return _WORDS[token.text]
        negative = self.take("-")
        if self.here.kind != "number":
            self.wrong("a JSON value is missing")
        text = self.step().text
        number = float(text) if "." in text else int(text)
        return -number if negative else number

    def _object(self) -> dict[str, object]:
        found: dict[str, object] = {}
        while not self.is_at("}"):
            key = self.string()
            self.want(":", "':' is missing after the key")
            found[key] = self._json()
            if not self.take(","):
                break
        self.want("}", "'}' or ',' is missing")
        return found

    def _list(self) -> list[object]:
        found: list[object] = []
        while not self.is_at("]"):
            found.append(self._json())
            if not self.take(","):
                break
        self.want("]", "']' or ',' is missing")
        return found
