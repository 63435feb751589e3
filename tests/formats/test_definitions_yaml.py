"""What people get wrong in definitions files, and the one message that each mistake gives."""

from __future__ import annotations

from typing import Any

import pytest

from streamseg.core.definitions import Definitions
from streamseg.formats.definitions_yaml import MAX_BYTES, DefinitionsError, load_definitions

GOOD = """\
version: 1
currency: EUR
features:
  orders: count(purchase, 90d)
  spend: sum(purchase.amount, 90d)
schemes:
  value:
    default: prospect
    segments:
      - name: champion
        when: orders >= 5 and spend >= 300
        stay_when: orders >= 4
        min_stay: 7d
      - name: loyal
        when: orders >= 3
  life:
    default: asleep
    segments:
      - name: awake
        when: since(any) <= 30d
"""

RFM = """\
rfm:
  recency: since(purchase)
  frequency: orders
  monetary: spend
  cuts: {recency: [30d, 60d, 120d, 240d], frequency: [1, 2, 4, 8], monetary: [25, 75, 150, 400]}
schemes:
"""


def rfm(old: str, new: str) -> str:
    """Give the scores, with a mistake, as they stand before the schemes."""
    assert old in RFM
    return RFM.replace(old, new)


def mistake(title: str, replaced: dict[str, str], said: str) -> Any:
    """Name what is wrong, what to replace in the good file, and all that is said then."""
    return pytest.param(replaced, said.strip("\n"), id=title)


MISTAKES = [
    mistake(
        "an unknown feature",
        {"orders >= 5 and spend >= 300": "order >= 5"},
        """
d.yaml:11:15: error: there is no feature 'order'
 11 |         when: order >= 5
    |               ^^^^^
    = hint: did you mean `orders`?
""",
    ),
    mistake(
        "an unknown feature like no other",
        {"orders >= 5 and spend >= 300": "zzz >= 5"},
        """
d.yaml:11:15: error: there is no feature 'zzz'
 11 |         when: zzz >= 5
    |               ^^^
    = hint: declare it under features: above, or quote it if it is a text
""",
    ),
    mistake(
        "an unknown function",
        {"count(purchase, 90d)": "cuont(purchase, 90d)"},
        """
d.yaml:4:11: error: there is no function 'cuont'
 4 |   orders: cuont(purchase, 90d)
   |           ^^^^^
   = hint: did you mean `count`?
""",
    ),
    mistake(
        "a function without its parentheses",
        {"since(any) <= 30d": "since <= 30d"},
        """
d.yaml:20:15: error: there is no feature 'since'
 20 |         when: since <= 30d
    |               ^^^^^
    = hint: write since(..)
""",
    ),
    mistake(
        "a missing window",
        {"count(purchase, 90d)": "count(purchase)"},
        """
d.yaml:4:25: error: count(..) needs a window
 4 |   orders: count(purchase)
   |                         ^
   = hint: such as count(purchase, 30d), or all
""",
    ),
    mistake(
        "a window without a unit",
        {"count(purchase, 90d)": "count(purchase, 90)"},
        """
d.yaml:4:27: error: '90' is no window
 4 |   orders: count(purchase, 90)
   |                           ^^
   = hint: write a unit: 90d
""",
    ),
    mistake(
        "a window with a word for a unit",
        {"count(purchase, 90d)": "count(purchase, 90days)"},
        """
d.yaml:4:27: error: '90days' is no duration
 4 |   orders: count(purchase, 90days)
   |                           ^^^^^^
   = hint: write 90d
""",
    ),
    mistake(
        "a window that is a word",
        {"count(purchase, 90d)": "count(purchase, month)"},
        """
d.yaml:4:27: error: 'month' is no window
 4 |   orders: count(purchase, month)
   |                           ^^^^^
   = hint: a duration such as 30d, or all
""",
    ),
    mistake(
        "a window too long",
        {"count(purchase, 90d)": "count(purchase, 1096d)"},
        """
d.yaml:4:27: error: a window is 1m to 1095d long, or all
 4 |   orders: count(purchase, 1096d)
   |                           ^^^^^
   = hint: all is a window without end
""",
    ),
    mistake(
        "a window too short",
        {"count(purchase, 90d)": "count(purchase, 5s)"},
        """
d.yaml:4:27: error: a window is 1m to 1095d long, or all
 4 |   orders: count(purchase, 5s)
   |                           ^^
""",
    ),
    mistake(
        "a window where none belongs",
        {"since(any) <= 30d": "since(any, 30d) <= 30d"},
        """
d.yaml:20:24: error: expected ')', found ','
 20 |         when: since(any, 30d) <= 30d
    |                        ^
    = hint: since(..) takes no window
""",
    ),
    mistake(
        "a bad duration",
        {"min_stay: 7d": "min_stay: 7 days"},
        """
d.yaml:13:19: error: min_stay: '7 days' is no duration
 13 |         min_stay: 7 days
    |                   ^^^^^^
    = hint: write 7d
""",
    ),
    mistake(
        "a duration without a unit",
        {"min_stay: 7d": "min_stay: 7"},
        """
d.yaml:13:19: error: min_stay: '7' is no duration
 13 |         min_stay: 7
    |                   ^
    = hint: write a unit: 7d
""",
    ),
    mistake(
        "a list for a duration",
        {"min_stay: 7d": "min_stay: [7d]"},
        """
d.yaml:13:19: error: min_stay must be a single value
 13 |         min_stay: [7d]
    |                   ^
""",
    ),
    mistake(
        "a duration against a number",
        {"since(any) <= 30d": "since(any) <= 30"},
        """
d.yaml:20:15: error: cannot compare a duration with a number
 20 |         when: since(any) <= 30
    |               ^^^^^^^^^^^^^^^^
    = hint: write a unit: 30d
""",
    ),
    mistake(
        "a number against a duration",
        {"orders >= 4": "orders >= 4d"},
        """
d.yaml:12:20: error: cannot compare a number with a duration
 12 |         stay_when: orders >= 4d
    |                    ^^^^^^^^^^^^
    = hint: a number has no unit
""",
    ),
    mistake(
        "a misspelt unit",
        {"since(any) <= 30d": "since(any) <= 30days"},
        """
d.yaml:20:29: error: '30days' is no duration
 20 |         when: since(any) <= 30days
    |                             ^^^^^^
    = hint: write 30d
""",
    ),
    mistake(
        "a duration that is no whole number",
        {"since(any) <= 30d": "since(any) <= 1.5d"},
        """
d.yaml:20:29: error: '1.5d' is no duration
 20 |         when: since(any) <= 1.5d
    |                             ^^^^
    = hint: a whole number and one of ms s m h d w, such as 30d
""",
    ),
    mistake(
        "an exponent",
        {"spend >= 300": "spend >= 1e3"},
        """
d.yaml:11:40: error: '1e3' is no duration
 11 |         when: orders >= 5 and spend >= 1e3
    |                                        ^^^
    = hint: write the number out
""",
    ),
    mistake(
        "money against a string",
        {"spend >= 300": 'spend >= "300"'},
        """
d.yaml:11:31: error: cannot compare money with a string
 11 |         when: orders >= 5 and spend >= "300"
    |                               ^^^^^^^^^^^^^^
    = hint: a number is written without quotes
""",
    ),
    mistake(
        "a number against a word",
        {"orders >= 5 and spend >= 300": '1 < orders < "x"'},
        """
d.yaml:11:19: error: cannot compare a number with a string
 11 |         when: 1 < orders < "x"
    |                   ^^^^^^^^^^^^
""",
    ),
    mistake(
        "an order of true and false",
        {"since(any) <= 30d": "attr(vip) > true"},
        """
d.yaml:20:15: error: true and false have no order
 20 |         when: attr(vip) > true
    |               ^^^^^^^^^^^^^^^^
""",
    ),
    mistake(
        "an order of null",
        {"orders >= 5 and spend >= 300": "orders > null"},
        """
d.yaml:11:15: error: null is only compared by == and !=
 11 |         when: orders > null
    |               ^^^^^^^^^^^^^
""",
    ),
    mistake(
        "a duration plus a number",
        {"since(any) <= 30d": "since(any) + 1 <= 30d"},
        """
d.yaml:20:15: error: cannot add a duration and a number
 20 |         when: since(any) + 1 <= 30d
    |               ^^^^^^^^^^^^^^
    = hint: write a duration, such as 30d
""",
    ),
    mistake(
        "time times time",
        {"since(any) <= 30d": "since(any) * since(purchase) <= 30d"},
        """
d.yaml:20:15: error: cannot multiply a duration and a duration
 20 |         when: since(any) * since(purchase) <= 30d
    |               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
""",
    ),
    mistake(
        "a quotient of times",
        {"since(any) <= 30d": "since(any) / since(purchase) <= 2"},
        """
d.yaml:20:15: error: time enters other than linearly, so the instant of the change cannot be computed
 20 |         when: since(any) / since(purchase) <= 2
    |               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    = hint: compare each time with a duration
""",
    ),
    mistake(
        "an unknown key",
        {"min_stay": "min_stya"},
        """
d.yaml:13:9: error: a segment has no key 'min_stya'
 13 |         min_stya: 7d
    |         ^^^^^^^^
    = hint: did you mean `min_stay`?
""",
    ),
    mistake(
        "a misspelt key that is required",
        {"name: loyal\n        when": "name: loyal\n        whem"},
        """
d.yaml:15:9: error: a segment has no key 'whem'
 15 |         whem: orders >= 3
    |         ^^^^
    = hint: did you mean `when`?
""",
    ),
    mistake(
        "an unknown key like no other",
        {"min_stay: 7d": "colour: red"},
        """
d.yaml:13:9: error: a segment has no key 'colour'
 13 |         colour: red
    |         ^^^^^^
    = hint: known: name, when, stay_when, min_stay, action, owner, channel, consent, description
""",
    ),
    mistake(
        "a misspelt key of the file",
        {"schemes:\n": "schemas:\n"},
        """
d.yaml:6:1: error: the file has no key 'schemas'
 6 | schemas:
   | ^^^^^^^
   = hint: did you mean `schemes`?
""",
    ),
    mistake(
        "a key twice",
        {"        min_stay: 7d": "        min_stay: 7d\n        min_stay: 8d"},
        """
d.yaml:14:9: error: 'min_stay' is there twice
 14 |         min_stay: 8d
    |         ^^^^^^^^
    = hint: the first is in line 13
""",
    ),
    mistake(
        "a segment twice",
        {"name: loyal": "name: champion"},
        """
d.yaml:14:15: error: segment 'champion' is there twice
 14 |       - name: champion
    |               ^^^^^^^^
    = hint: the first is in line 10
""",
    ),
    mistake(
        "a segment named like the default",
        {"name: loyal": "name: prospect"},
        """
d.yaml:14:15: error: segment 'prospect' is there twice
 14 |       - name: prospect
    |               ^^^^^^^^
    = hint: the first is in line 8
""",
    ),
    mistake(
        "no default",
        {"    default: prospect\n": ""},
        """
d.yaml:8:5: error: scheme value needs a default
 8 |     segments:
   |     ^
   = hint: default: the segment of everybody else
""",
    ),
    mistake(
        "no when",
        {"        when: orders >= 3\n": ""},
        """
d.yaml:14:15: error: segment 'loyal' needs when
 14 |       - name: loyal
    |               ^^^^^
    = hint: such as when: orders >= 3
""",
    ),
    mistake(
        "no name",
        {"- name: loyal\n        when": "- when"},
        """
d.yaml:14:9: error: a segment needs a name
 14 |       - when: orders >= 3
    |         ^
""",
    ),
    mistake(
        "no segments",
        {"    segments:\n      - name: awake\n        when: since(any) <= 30d\n": ""},
        """
d.yaml:17:5: error: scheme life needs segments
 17 |     default: asleep
    |     ^
    = hint: each begins with - name:
""",
    ),
    mistake(
        "segments that are no list",
        {"    segments:\n      - name: awake\n        when: since(any) <= 30d\n": "    segments: {a: b}\n"},
        """
d.yaml:18:15: error: segments must be a list
 18 |     segments: {a: b}
    |               ^
    = hint: each begins with - name:
""",
    ),
    mistake(
        "no schemes",
        {GOOD[GOOD.index("schemes:") :]: ""},
        """
d.yaml:1:1: error: schemes are missing
 1 | version: 1
   | ^
   = hint: schemes: {value: {default: .., segments: [..]}}
""",
    ),
    mistake(
        "an empty when",
        {"when: orders >= 3": "when:"},
        """
d.yaml:15:14: error: when is empty
 15 |         when:
    |              ^
""",
    ),
    mistake(
        "a when that is a list",
        {"when: orders >= 3": "when: [orders >= 3]"},
        """
d.yaml:15:15: error: when must be a single value
 15 |         when: [orders >= 3]
    |               ^
""",
    ),
    mistake(
        "a when that is a number",
        {"orders >= 3": "3"},
        """
d.yaml:15:15: error: a condition must be true or false; this is a number
 15 |         when: 3
    |               ^
    = hint: compare it, as in x >= 1
""",
    ),
    mistake(
        "a when that is a feature",
        {"orders >= 3": "orders"},
        """
d.yaml:15:15: error: a condition must be true or false; this is a number
 15 |         when: orders
    |               ^^^^^^
    = hint: compare it, as in x >= 1
""",
    ),
    mistake(
        "a tab",
        {"        when: orders >= 3": "\twhen: orders >= 3"},
        """
d.yaml:15:1: error: not YAML: a tab cannot indent
 15 |  when: orders >= 3
    | ^
    = hint: indent with spaces, not tabs
""",
    ),
    mistake(
        "a list that is not closed",
        {"default: prospect": "default: [prospect"},
        """
d.yaml:9:13: error: not YAML: expected ',' or ']', but got ':', in a list [..]
 9 |     segments:
   |             ^
   = hint: it was opened in line 8: is it closed?
""",
    ),
    mistake(
        "a colon in a text",
        {"orders >= 3": "a: b"},
        """
d.yaml:15:16: error: not YAML: mapping values are not allowed here
 15 |         when: a: b
    |                ^
    = hint: quote a text that has ': ' in it
""",
    ),
    mistake(
        "a quote that is not closed",
        {"orders >= 3": '"orders >= 3'},
        """
d.yaml:15:15: error: not YAML: a quoted text that does not end
 15 |         when: "orders >= 3
    |               ^
    = hint: close it with the same quote
""",
    ),
    mistake(
        "a quote around a part",
        {"orders >= 3": '"pro" == attr(plan)'},
        """
d.yaml:15:21: error: not YAML: expected <block end>, but found '<scalar>'
 15 |         when: "pro" == attr(plan)
    |                     ^
    = hint: a value that begins with a quote ends with it: put the whole text in '..'
""",
    ),
    mistake(
        "wrong indentation",
        {"      - name: loyal": "     - name: loyal"},
        """
d.yaml:14:6: error: not YAML: expected <block end>, but found '<block sequence start>'
 14 |      - name: loyal
    |      ^
    = hint: check the indentation
""",
    ),
    mistake(
        "two documents",
        {"    default: asleep": "---\n    default: asleep"},
        """
d.yaml:17:1: error: not YAML: a second document begins here
 17 | ---
    | ^
    = hint: a file holds one: leave out ---
""",
    ),
    mistake(
        "an alias",
        {"asleep": "*a"},
        """
d.yaml:17:14: error: anchors and aliases are not allowed
 17 |     default: *a
    |              ^
    = hint: write the value out; quote it if it is a text that begins with & or *
""",
    ),
    mistake(
        "an anchor",
        {"asleep": "&a asleep"},
        """
d.yaml:17:14: error: anchors and aliases are not allowed
 17 |     default: &a asleep
    |              ^
    = hint: write the value out; quote it if it is a text that begins with & or *
""",
    ),
    mistake(
        "a tag",
        {"asleep": "!!python/object:os.system asleep"},
        """
d.yaml:17:14: error: tags are not allowed
 17 |     default: !!python/object:os.system asleep
    |              ^
    = hint: leave it out; quote a text that begins with !
""",
    ),
    mistake(
        "a control character",
        {"asleep": "as\x00leep"},
        """
d.yaml:17:16: error: not YAML: the character U+0000 is not allowed
 17 |     default: as\x00leep
    |                ^
""",
    ),
    mistake(
        "an unknown scheme",
        {"since(any) <= 30d": 'segment(valeu) == "loyal"'},
        """
d.yaml:20:15: error: there is no scheme 'valeu'
 20 |         when: segment(valeu) == "loyal"
    |               ^^^^^^^^^^^^^^
    = hint: did you mean `value`?
""",
    ),
    mistake(
        "a scheme that stands later",
        {"orders >= 5 and spend >= 300": 'segment(life) == "awake"'},
        """
d.yaml:11:15: error: scheme 'life' does not stand earlier in the file
 11 |         when: segment(life) == "awake"
    |               ^^^^^^^^^^^^^
    = hint: move it above this one
""",
    ),
    mistake(
        "a scheme that refers to itself",
        {"orders >= 5 and spend >= 300": 'segment(value) == "loyal"'},
        """
d.yaml:11:15: error: a scheme cannot refer to itself
 11 |         when: segment(value) == "loyal"
    |               ^^^^^^^^^^^^^^
    = hint: its own segment is what is being decided
""",
    ),
    mistake(
        "an unknown segment",
        {"since(any) <= 30d": 'segment(value) == "loyall"'},
        """
d.yaml:20:33: error: the scheme has no segment 'loyall'
 20 |         when: segment(value) == "loyall"
    |                                 ^^^^^^^^
    = hint: did you mean `loyal`?
""",
    ),
    mistake(
        "an unknown segment in a list",
        {"since(any) <= 30d": 'segment(value) in ["loyal", "champoin"]'},
        """
d.yaml:20:43: error: the scheme has no segment 'champoin'
 20 |         when: segment(value) in ["loyal", "champoin"]
    |                                           ^^^^^^^^^^
    = hint: did you mean `champion`?
""",
    ),
    mistake(
        "a segment without quotes",
        {"since(any) <= 30d": "segment(value) == loyal"},
        """
d.yaml:20:33: error: there is no feature 'loyal'
 20 |         when: segment(value) == loyal
    |                                 ^^^^^
    = hint: declare it under features: above, or quote it if it is a text
""",
    ),
    mistake(
        "a single equals sign",
        {"orders >= 3": "orders = 3"},
        """
d.yaml:15:22: error: unexpected character '='
 15 |         when: orders = 3
    |                      ^
    = hint: write == to compare
""",
    ),
    mistake(
        "an arrow",
        {"orders >= 3": "orders => 3"},
        """
d.yaml:15:22: error: unexpected character '='
 15 |         when: orders => 3
    |                      ^
    = hint: write >=
""",
    ),
    mistake(
        "a diamond",
        {"orders >= 3": "orders <> 3"},
        """
d.yaml:15:23: error: expected a value, found '>'
 15 |         when: orders <> 3
    |                       ^
    = hint: write != for `not equal`
""",
    ),
    mistake(
        "two ampersands",
        {"orders >= 5 and spend >= 300": "orders >= 5 && spend >= 300"},
        """
d.yaml:11:27: error: unexpected character '&'
 11 |         when: orders >= 5 && spend >= 300
    |                           ^
    = hint: write and
""",
    ),
    mistake(
        "a word in capitals",
        {"orders >= 5 and spend >= 300": "orders >= 5 AND spend >= 300"},
        """
d.yaml:11:27: error: unexpected 'AND'
 11 |         when: orders >= 5 AND spend >= 300
    |                           ^^^
    = hint: write and
""",
    ),
    mistake(
        "a condition that stops short",
        {"orders >= 5 and spend >= 300": "orders >= 5 and"},
        """
d.yaml:11:30: error: expected a value, found the end of the expression
 11 |         when: orders >= 5 and
    |                              ^
""",
    ),
    mistake(
        "a bracket that is not closed",
        {"orders >= 5 and spend >= 300": "(orders >= 5"},
        """
d.yaml:11:27: error: expected ')', found the end of the expression
 11 |         when: (orders >= 5
    |                           ^
""",
    ),
    mistake(
        "a bracket that was not opened",
        {"orders >= 5 and spend >= 300": "orders >= 5)"},
        """
d.yaml:11:26: error: unexpected ')'
 11 |         when: orders >= 5)
    |                          ^
""",
    ),
    mistake(
        "a separator of thousands",
        {"spend >= 300": "spend >= 1,000"},
        """
d.yaml:11:41: error: unexpected ','
 11 |         when: orders >= 5 and spend >= 1,000
    |                                         ^
    = hint: write numbers without separators, and lists in [..]
""",
    ),
    mistake(
        "a number that begins with a point",
        {"spend >= 300": "spend >= .5"},
        """
d.yaml:11:40: error: unexpected character '.'
 11 |         when: orders >= 5 and spend >= .5
    |                                        ^
    = hint: a number begins with a digit: 0.5
""",
    ),
    mistake(
        "a field outside of a function",
        {"spend >= 300": "purchase.amount >= 5"},
        """
d.yaml:11:39: error: unexpected character '.'
 11 |         when: orders >= 5 and purchase.amount >= 5
    |                                       ^
    = hint: a field is read by last(type.field)
""",
    ),
    mistake(
        "a string that is not closed",
        {"since(any) <= 30d": 'attr(plan) == "pro'},
        """
d.yaml:20:29: error: a string that does not end
 20 |         when: attr(plan) == "pro
    |                             ^^^^
    = hint: close it with the same quote
""",
    ),
    mistake(
        "a not inside",
        {"since(any) <= 30d": 'attr(plan) not in ["pro"]'},
        """
d.yaml:20:26: error: 'not' stands before a comparison, not in it
 20 |         when: attr(plan) not in ["pro"]
    |                          ^^^
    = hint: write not (x in [..])
""",
    ),
    mistake(
        "a reserved name",
        {"count(purchase, 90d)": "count(purchase, 90d)\n  count: count(purchase, 90d)"},
        """
d.yaml:5:3: error: 'count' has a meaning of its own
 5 |   count: count(purchase, 90d)
   |   ^^^^^
   = hint: choose another name
""",
    ),
    mistake(
        "a score as a name",
        {"count(purchase, 90d)": "count(purchase, 90d)\n  r: count(purchase, 90d)"},
        """
d.yaml:5:3: error: 'r' has a meaning of its own
 5 |   r: count(purchase, 90d)
   |   ^
   = hint: choose another name
""",
    ),
    mistake(
        "a bad name",
        {"count(purchase, 90d)": "count(purchase, 90d)\n  7up: count(purchase, 90d)"},
        """
d.yaml:5:3: error: '7up' is no name for a feature
 5 |   7up: count(purchase, 90d)
   |   ^^^
   = hint: a letter, then letters, digits and _, at most 64
""",
    ),
    mistake(
        "cuts that descend",
        {"schemes:\n": rfm("60d, 120d", "120d, 60d")},
        """
d.yaml:10:31: error: cut points must ascend
 10 |   cuts: {recency: [30d, 120d, 60d, 240d], frequency: [1, 2, 4, 8], monetary: [25, 75, 150, 400]}
    |                               ^^^
""",
    ),
    mistake(
        "three cuts",
        {"schemes:\n": rfm("[1, 2, 4, 8]", "[1, 2, 4]")},
        """
d.yaml:10:54: error: cuts of frequency must be a list of four ascending points; there are 3
 10 |   cuts: {recency: [30d, 60d, 120d, 240d], frequency: [1, 2, 4], monetary: [25, 75, 150, 400]}
    |                                                      ^
""",
    ),
    mistake(
        "a cut that is no number",
        {"schemes:\n": rfm("[1, 2, 4, 8]", "[1, 2, x, 8]")},
        """
d.yaml:10:61: error: a cut of frequency must be a decimal number
 10 |   cuts: {recency: [30d, 60d, 120d, 240d], frequency: [1, 2, x, 8], monetary: [25, 75, 150, 400]}
    |                                                             ^
""",
    ),
    mistake(
        "a recency that is a number",
        {"schemes:\n": rfm("since(purchase)", "orders")},
        """
d.yaml:7:12: error: recency must be a duration; this is a number
 7 |   recency: orders
   |            ^^^^^^
""",
    ),
    mistake(
        "an rfm block with holes",
        {"schemes:\n": "rfm:\n  recency: since(purchase)\nschemes:\n"},
        """
d.yaml:7:3: error: rfm needs frequency, monetary and cuts
 7 |   recency: since(purchase)
   |   ^
""",
    ),
    mistake(
        "a score without an rfm block",
        {"orders >= 3": "r >= 4"},
        """
d.yaml:15:15: error: 'r' is a score: there is no rfm: block, or it is used above it
 15 |         when: r >= 4
    |               ^
    = hint: scores are for when: and stay_when:, and need an rfm: block
""",
    ),
    mistake(
        "another version",
        {"version: 1": "version: 2"},
        """
d.yaml:1:10: error: this streamseg reads version 1
 1 | version: 2
   |          ^
   = hint: version: 1
""",
    ),
    mistake(
        "no version",
        {"version: 1\n": ""},
        """
d.yaml:1:1: error: version is missing
 1 | currency: EUR
   | ^
   = hint: start the file with version: 1
""",
    ),
    mistake(
        "no currency",
        {"currency: EUR\n": ""},
        """
d.yaml:1:1: error: currency is missing
 1 | version: 1
   | ^
   = hint: such as currency: EUR
""",
    ),
    mistake(
        "a currency in small letters",
        {"EUR": "eur"},
        """
d.yaml:2:11: error: currency must be three capital letters of ISO 4217
 2 | currency: eur
   |           ^^^
   = hint: such as EUR
""",
    ),
    mistake(
        "a negative rate",
        {"currency: EUR": "currency: EUR\nrates: {USD: -1}"},
        """
d.yaml:3:14: error: a rate must be above zero
 3 | rates: {USD: -1}
   |              ^^
""",
    ),
    mistake(
        "a feature that uses a later one",
        {"  orders: count(purchase, 90d)": "  twice: orders * 2\n  orders: count(purchase, 90d)"},
        """
d.yaml:4:10: error: feature 'orders' does not stand earlier in the file
 4 |   twice: orders * 2
   |          ^^^^^^
   = hint: move it above what uses it; a feature cannot use itself
""",
    ),
    mistake(
        "a feature that uses itself",
        {"count(purchase, 90d)": "orders + 1"},
        """
d.yaml:4:11: error: feature 'orders' does not stand earlier in the file
 4 |   orders: orders + 1
   |           ^^^^^^
   = hint: move it above what uses it; a feature cannot use itself
""",
    ),
    mistake(
        "a type with a strange character",
        {"count(purchase, 90d)": "count(purch@se, 90d)"},
        """
d.yaml:4:22: error: unexpected character '@'
 4 |   orders: count(purch@se, 90d)
   |                      ^
""",
    ),
    mistake(
        "a type in quotes",
        {"count(purchase, 90d)": 'count("purchase", 90d)'},
        """
d.yaml:4:17: error: count(..) needs an event type
 4 |   orders: count("purchase", 90d)
   |                 ^
   = hint: it is written without quotes
""",
    ),
    mistake(
        "a control event",
        {"count(purchase, 90d)": "count(erase, 90d)"},
        """
d.yaml:4:17: error: 'erase' is a control event and is not counted
 4 |   orders: count(erase, 90d)
   |                 ^^^^^
""",
    ),
    mistake(
        "a sum of no field",
        {"sum(purchase.amount, 90d)": "sum(purchase, 90d)"},
        """
d.yaml:5:14: error: sum(..) needs a field of an event type
 5 |   spend: sum(purchase, 90d)
   |              ^^^^^^^^
   = hint: such as sum(purchase.amount, 30d)
""",
    ),
    mistake(
        "a feature inside where",
        {"count(purchase, 90d)": "count(purchase where attr(x) == 1, 90d)"},
        """
d.yaml:4:32: error: not possible inside where: only fields of the event are
 4 |   orders: count(purchase where attr(x) == 1, 90d)
   |                                ^^^^^^^
""",
    ),
    mistake(
        "a place in a literal block",
        {"when: orders >= 5 and spend >= 300": "when: |\n          orders >= 5\n          and spent >= 300"},
        """
d.yaml:13:15: error: there is no feature 'spent'
 13 |           and spent >= 300
    |               ^^^^^
    = hint: did you mean `spend`?
""",
    ),
    mistake(
        "a place in a folded block",
        {"when: orders >= 5 and spend >= 300": "when: >-\n          orders >= 5\n          and spent >= 300"},
        """
d.yaml:13:15: error: there is no feature 'spent'
 13 |           and spent >= 300
    |               ^^^^^
    = hint: did you mean `spend`?
""",
    ),
    mistake(
        "a place in double quotes",
        {"when: orders >= 5 and spend >= 300": 'when: "attr(plan) == \\"pro\\" and spent >= 300"'},
        r"""
d.yaml:11:42: error: there is no feature 'spent'
 11 |         when: "attr(plan) == \"pro\" and spent >= 300"
    |                                          ^^^^^
    = hint: did you mean `spend`?
""",
    ),
    mistake(
        "a place in single quotes",
        {"when: orders >= 5 and spend >= 300": "when: 'attr(plan) == ''pro'' and spent >= 300'"},
        """
d.yaml:11:42: error: there is no feature 'spent'
 11 |         when: 'attr(plan) == ''pro'' and spent >= 300'
    |                                          ^^^^^
    = hint: did you mean `spend`?
""",
    ),
    mistake(
        "a place in the second line of a plain text",
        {"when: orders >= 5 and spend >= 300": "when: orders >= 5\n          and spent >= 300"},
        """
d.yaml:12:15: error: there is no feature 'spent'
 12 |           and spent >= 300
    |               ^^^^^
    = hint: did you mean `spend`?
""",
    ),
    mistake(
        "a score whose rfm block is wrong",
        {"schemes:\n": rfm("60d, 120d", "120d, 60d"), "orders >= 3": "r >= 3"},
        """
d.yaml:10:31: error: cut points must ascend
 10 |   cuts: {recency: [30d, 120d, 60d, 240d], frequency: [1, 2, 4, 8], monetary: [25, 75, 150, 400]}
    |                               ^^^
""",
    ),
    mistake(
        "a scheme whose segment is wrong, used by another",
        {"orders >= 3": "oders >= 3", "since(any) <= 30d": 'segment(value) == "loyal"'},
        """
d.yaml:15:15: error: there is no feature 'oders'
 15 |         when: oders >= 3
    |               ^^^^^
    = hint: did you mean `orders`?
""",
    ),
]


def changed(replaced: dict[str, str]) -> str:
    text = GOOD
    for old, new in replaced.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    return text


def complaint(data: bytes) -> DefinitionsError:
    with pytest.raises(DefinitionsError) as caught:
        load_definitions(data, "d.yaml")
    return caught.value


def loaded(text: str) -> Definitions:
    return load_definitions(text.encode(), "d.yaml")


def test_the_file_that_the_mistakes_are_made_in_is_right() -> None:
    definitions = loaded(GOOD)
    assert definitions.scheme_names == ("value", "life")
    assert definitions.schemes[0].scheme.names == ("champion", "loyal", "prospect")


@pytest.mark.parametrize(("replaced", "said"), MISTAKES)
def test_one_mistake_gives_one_message_with_its_place_and_how_to_mend_it(replaced: dict[str, str], said: str) -> None:
    error = complaint(changed(replaced).encode())
    assert str(error) == said
    assert len(error.problems) == 1
    assert error.exit_code == 1


@pytest.mark.parametrize("data", [b"", b"# nothing yet\n", b"---\n"], ids=["empty", "a comment", "an empty document"])
def test_an_empty_file_says_how_to_begin(data: bytes) -> None:
    [problem] = complaint(data).problems
    assert (problem.message, problem.line, problem.column) == ("the file is empty", 1, 1)
    assert problem.hint == "start with version: 1"


def test_a_file_that_is_too_large_is_not_read() -> None:
    assert str(complaint(b"#" * (MAX_BYTES + 1))) == (
        "d.yaml:1:1: error: the file is larger than 256 KB\n"
        " = hint: definitions are some pages of text: is it the right file?"
    )
    assert loaded(GOOD + "#" * (MAX_BYTES - len(GOOD))).digits == 2


def test_a_file_that_is_nested_too_deeply_is_refused_where_it_becomes_so() -> None:
    [problem] = complaint(b"a: " + b"[" * 5_000).problems
    assert (problem.message, problem.line, problem.column) == ("nested deeper than 20", 1, 23)


@pytest.mark.parametrize("number", ["NaN", ".nan", ".inf", "-.inf", "Infinity", "1e999", "0x10", "1_000", "١"])
def test_a_threshold_that_is_no_decimal_number_is_refused_where_it_stands(number: str) -> None:
    [problem] = complaint(changed({"orders >= 4": f"orders >= {number}"}).encode()).problems
    assert problem.line == 12


@pytest.mark.parametrize("rate", [".nan", ".inf", "NaN", "0", "-1", "1e999", "1e-99999", "''"])
def test_a_rate_that_is_no_decimal_number_above_zero_is_refused(rate: str) -> None:
    assert complaint(f"rates: {{USD: {rate}}}\n{GOOD}".encode()).problems[0].line == 1


def test_a_file_with_too_many_parts_is_refused() -> None:
    [problem] = complaint(b"a: [" + b"1, " * 30_000 + b"1]").problems
    assert problem.message == "more than 20000 parts"


def test_a_file_that_is_not_utf_8_says_where() -> None:
    text = "currency: EUR  # caf\ufffd\n   |                     ^"
    assert str(complaint(b"version: 1\ncurrency: EUR  # caf\xe9\n")) == (
        f"d.yaml:2:21: error: the file is not UTF-8\n 2 | {text}\n   = hint: save it as UTF-8"
    )


def test_a_byte_order_mark_and_line_ends_of_windows_are_no_mistake() -> None:
    assert loaded("\ufeff" + GOOD.replace("\n", "\r\n")).scheme_names == ("value", "life")


def test_separate_mistakes_are_all_told_in_the_order_of_the_file() -> None:
    text = changed({"orders >= 4": "orders >= four", "asleep": "a sleep"})
    assert [(problem.line, problem.message) for problem in complaint(text.encode()).problems] == [
        (12, "there is no feature 'four'"),
        (17, "'a sleep' is no name for a segment"),
    ]


def test_a_block_that_is_folded_means_the_same_as_one_line() -> None:
    folded = changed({"orders >= 5 and spend >= 300": ">\n          orders >= 5\n          and spend >= 300"})
    assert loaded(folded).schemes[0].segments[0].when[1].text == "spend >= 300"


@pytest.mark.parametrize("depth", [40, 400, 1_900])
def test_brackets_without_end_are_refused_and_do_no_harm(depth: int) -> None:
    text = changed({"orders >= 3": "(" * depth + "orders >= 3" + ")" * depth})
    [problem] = complaint(text.encode()).problems
    assert problem.message == "nested deeper than 40"
