"""Bugs in residuals, in what is kept of them, and in the mask."""

from tests.guard.sabotage.mutant import Mutant

_FINE = "guard/test_mask_fine_points.py"
_AGREE = "guard/test_residual.py::test_residuals_of_complete_arguments_agree_with_the_gate"
_KEPT = "guard/test_residual.py::test_residuals_that_are_kept_are_those_that_would_be_found_anew"

RESIDUAL = (
    Mutant(
        "a comparison's sides are flipped without its sign",
        "guard/masking/nodes.py",
        '"<": ">", "<=": ">="',
        '"<": "<", "<=": "<="',
        f"{_FINE}::test_a_constant_may_stand_on_either_side",
    ),
    Mutant(
        "in a case the others stand where the absent belong",
        "guard/masking/partial.py",
        'else ["case", args[0], rows, other, unknown]',
        'else ["case", args[0], rows, unknown, other]',
        _AGREE,
    ),
    Mutant(
        "a row equal to the absent one is dropped",
        "guard/masking/partial.py",
        "rows = [row for row in rows if row[1] != other]",
        "rows = [row for row in rows if row[1] != unknown]",
        _AGREE,
    ),
    Mutant(
        "what is left of a limit forgets what was charged",
        "guard/masking/partial.py",
        "const_json(bound - total)",
        "const_json(bound)",
        f"{_FINE}::test_what_was_charged_is_taken_from_what_is_left",
    ),
    Mutant(
        "an unknown total leaves a limit open",
        "guard/masking/partial.py",
        '            if total is UNKNOWN or order("<=", total, bound) is None:\n                return None\n',
        '            if total is UNKNOWN or order("<=", total, bound) is None:\n                return True\n',
        f"{_FINE}::test_a_total_that_nobody_knows_leaves_nothing",
    ),
    Mutant(
        "not unknown is true",
        "guard/masking/joining.py",
        "    if part is None or part == OPAQUE:\n        return part\n",
        "    if part is None or part == OPAQUE:\n        return part or True\n",
        _AGREE,
    ),
    Mutant(
        "the duty of the last slot leaves no residual",
        "guard/masking/residual.py",
        '        rules += [["!duty", self._owed(name, duty)] for duty in self._pressing]\n',
        "",
        "guard/test_duties.py::test_the_mask_knows_the_last_slot",
    ),
    Mutant(
        "a confirmed call is offered to every tool",
        "guard/masking/partial.py",
        "if tool == self._tool and closure(frame) is True:",
        "if closure(frame) is True:",
        f"{_FINE}::test_a_confirmation_is_for_its_own_tool_and_for_what_it_leaves_out",
    ),
    Mutant(
        "a kept residual outlives the registers that it read",
        "guard/masking/kept.py",
        "        triggers |= _events(program, clause)\n",
        "        pass\n",
        f"{_FINE}::test_what_is_kept_ends_with_what_its_registers_and_relations_hear",
    ),
    Mutant(
        "a kept residual outlives what it heard itself",
        "guard/masking/kept.py",
        "        triggers |= node.triggers\n",
        "        pass\n",
        _KEPT,
    ),
    Mutant(
        "a kept residual outlives the events of other processes",
        "guard/masking/kept.py",
        "any(store.shared for store in stores)",
        "False",
        f"{_FINE}::test_what_is_kept_ends_with_an_event_elsewhere_that_it_hears",
    ),
    Mutant(
        "a kept residual outlives its window",
        "guard/masking/kept.py",
        "        node.window for node in rule.nodes\n",
        "        False for node in rule.nodes\n",
        f"{_FINE}::test_what_is_kept_ends_with_its_window",
    ),
)

MASK = (
    Mutant(
        "a key may be written twice",
        "guard/masking/standing.py",
        "            and name not in args\n            and choices.can_follow(name, args)\n",
        "            and choices.can_follow(name, args)\n",
        f"{_FINE}::test_no_key_is_opened_twice",
    ),
    Mutant(
        "a required argument may be left out",
        "guard/masking/standing.py",
        "if args is None or any(name not in arguments and not choices.params[name][1] for name in choices.params):",
        "if args is None:",
        f"{_FINE}::test_a_call_is_closed_only_when_it_is_whole",
    ),
    Mutant(
        "a number's decimals are off by one",
        "guard/masking/numbers.py",
        "(done + Fraction(1, 10 ** len(fraction))) * 10**places",
        "(done + Fraction(1, 10 ** (len(fraction) + 1))) * 10**places",
        f"{_FINE}::test_a_prefix_can_grow_exactly_into_the_numbers_that_begin_with_it",
    ),
    Mutant(
        "a range includes its open end",
        "guard/masking/numbers.py",
        "below, above = math.ceil(mark) - 1, math.floor(mark) + 1",
        "below, above = math.ceil(mark), math.floor(mark) + 1",
        f"{_FINE}::test_a_mark_cuts_the_units_as_its_sign_says",
    ),
    Mutant(
        "negative numbers are ranged like positive ones",
        "guard/masking/numbers.py",
        "    if sign < 0:\n        low, high = -high, -low\n",
        "",
        f"{_FINE}::test_a_prefix_can_grow_exactly_into_the_numbers_that_begin_with_it",
    ),
    Mutant(
        "an absent argument passes for a confirmed one",
        "guard/masking/nodes.py",
        "[case(name, rows.get(name, {}), False, name not in told) for name in self._params]",
        "[case(name, rows.get(name, {}), name not in told, name not in told) for name in self._params]",
        f"{_FINE}::test_a_confirmation_is_for_its_own_tool_and_for_what_it_leaves_out",
    ),
    Mutant(
        "unknown is enough for the mask",
        "guard/masking/choices.py",
        "            left = [reduced(node, args) for _, node in self.rules if id(node) not in self._dropped]\n",
        "            left = [reduced(node, args) for _, node in self.rules if id(node) not in self._dropped]\n"
        "            left = [node is None or node for node in left]\n",
        f"{_FINE}::test_what_is_unknown_cannot_be_written",
    ),
    Mutant(
        "of two conditions on an argument the later one counts",
        "guard/masking/search.py",
        "domains[name] = domains[name] & one if name in domains else one",
        "domains[name] = one",
        f"{_FINE}::test_two_rules_on_one_argument_both_count",
    ),
    Mutant(
        "what was found at a place is kept for other arguments",
        "guard/masking/standing.py",
        "return parser.place, parser.done, parser.name, spot, reader.key, reader.value, args",
        "return parser.place, parser.done, parser.name, spot, reader.key, reader.value",
        f"{_FINE}::test_a_fork_with_another_argument_has_another_mask",
    ),
    Mutant(
        "newer residuals leave the old findings in place",
        "guard/masking/mask.py",
        "        self._has_given_up = False\n        self._places, self._free, self._known = {}, {}, None\n",
        "        self._has_given_up = False\n        self._known = None\n",
        "guard/test_mask.py::test_newer_residuals_take_effect_in_the_middle_of_a_name",
    ),
    Mutant(
        "a number has no more digits before its point",
        "guard/masking/numbers.py",
        "tens = [10**count for count in range(_MOST_DIGITS)]",
        "tens = [1]",
        f"{_FINE}::test_a_prefix_can_grow_exactly_into_the_numbers_that_begin_with_it",
    ),
)

_CHOICES = "guard/test_choices.py"
_LANGUAGES = "guard/test_languages.py"
_WHOLE = "guard/test_permissive.py::test_what_is_left_of_the_rules_says_of_whole_calls_what_the_gate_says"
_MONKEY = "guard/test_monkey.py::test_no_beginning_that_is_let_through_is_without_an_end_or_refused"

SETS = (
    Mutant(
        "a text may end wherever it can go on",
        "guard/masking/strings.py",
        "return not spot[1] and self.language.is_final(spot[0])",
        "return not spot[1]",
        f"{_LANGUAGES}::test_a_text_is_let_through_byte_by_byte_where_the_conditions_hold_of_it",
    ),
    Mutant(
        "part of a word that was seen was seen",
        "guard/masking/languages.py",
        "return any(self._ends[place] for place in state)",
        "return True",
        f"{_LANGUAGES}::test_a_text_is_let_through_byte_by_byte_where_the_conditions_hold_of_it",
    ),
    Mutant(
        "a token is one character longer than may follow",
        "guard/masking/languages.py",
        "                return count\n",
        "                return count + 1\n",
        f"{_LANGUAGES}::test_the_tokens_of_a_place_are_those_that_pass_one_by_one",
    ),
    Mutant(
        "a full list takes one more element",
        "guard/masking/lists.py",
        "if most is not None and most <= size:",
        "if most is not None and most < size:",
        _MONKEY,
    ),
    Mutant(
        "less is less or equal among open numbers",
        "guard/masking/linear.py",
        '"<=" if "=" in one else "<"',
        '"<="',
        f"{_CHOICES}::test_a_bound_is_as_strict_as_its_relation",
    ),
    Mutant(
        "a value is looked for where it must not be",
        "guard/masking/joining.py",
        '(canonical(node[3]) == key) is (node[1] == "=")',
        "canonical(node[3]) == key",
        f"{_CHOICES}::test_what_hangs_on_a_whole_argument_is_drawn_out_of_a_quantifier",
    ),
    Mutant(
        "a row that is possible only decides",
        "guard/masking/partial.py",
        "part = (conjunction if exists else disjunction)([part, None])",
        "pass",
        f"{_CHOICES}::test_a_row_that_may_go_allows_nothing",
    ),
    Mutant(
        "lists of different length are held against each other",
        "guard/masking/nodes.py",
        "    if len({len(one) for one in lists}) > 1:\n        return None\n",
        "    lists = [one[: min(map(len, lists))] for one in lists]\n",
        _WHOLE,
    ),
)
