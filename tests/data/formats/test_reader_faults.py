"""Faults of formats other than COCO: each is one line with the file and the line, object or entry."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.data.formats.recognise import read_annotations
from engine.errors import InputError
from tests.data.formats.test_readers import voc, voc_object, write

BOMB = '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("kind", "name", "text", "words"),
    [
        ("voc", "a.xml", "", [":1: not valid XML: no element found"]),
        ("voc", "a.xml", "<annotation>\n<object>", [":2: not valid XML"]),
        ("voc", "a.xml", "<a>" * 100 + "</a>" * 100, [":1: elements are nested deeper than 64 levels"]),
        ("voc", "a.xml", BOMB + voc(voc_object("&b;")), [":1: it declares entities"]),
        ("voc", "a.xml", "<!DOCTYPE a SYSTEM 'file:///etc/passwd'>" + voc(voc_object("&x;")), ["entity of its own"]),
        ("voc", "a.xml", "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>" + voc(""), ["declares entities"]),
        ("voc", "a.xml", '<?xml version="1.0" encoding="klingon"?><annotation/>', ["cannot be read as 'klingon'"]),
        ("voc", "a.xml", '<?xml version="1.0" encoding="hex"?><annotation/>', ["cannot be read as 'hex'"]),
        ("voc", "a.xml", "<html/>", ["first element must be <annotation>, not <html>"]),
        ("voc", "a.xml", voc("<object><nam>x</nam></object>"), ["object 1: has no <name>; did you mean <nam>?"]),
        (
            "voc",
            "a.xml",
            voc("<object><name>x</name><bndbx/></object>"),
            ["object 1 ('x'): has no <bndbox>; did", "bndbx"],
        ),
        (
            "voc",
            "a.xml",
            voc(voc_object().replace("xmin", "xmni")),
            ["<xmin> of <bndbox> is missing; did you mean <xmni>"],
        ),
        (
            "voc",
            "a.xml",
            voc(voc_object(corners=("1", "2", "nan", "4"))),
            ["<xmax> of <bndbox> must be a number, not 'nan'"],
        ),
        ("voc", "a.xml", voc(voc_object(more="<difficult>2</difficult>")), ["<difficult> must be 0 or 1, not '2'"]),
        ("voc", "list.txt", "a\nb\n", ["needs a folder Annotations"]),
        ("yolo", "labels/a.txt", "0 0.5 0.5 0.1\n", ["labels/a.txt:1: must be class x y width height", "not 4 values"]),
        ("yolo", "labels/a.txt", "0 .5 .5 .1 .1 .9\n", ["a.txt:1", "not 6 values", "score of a detection"]),
        ("yolo", "labels/a.txt", "0 .5 .5 .1 .1\n0 .5 .5 .1 x\n", ["a.txt:2: must be numbers", "'0 .5 .5 .1 x'"]),
        ("yolo", "labels/a.txt", "\n5 .5 .5 .1 .1\n", ["a.txt:2: class 5 has no name in", "data.yaml, which has 2"]),
        ("yolo", "labels/a.txt", "0 0,5 0,5 0,2 0,2\n", ["a.txt:1: has commas within numbers; write 0.5"]),
        ("txt", "a.txt", "10,5 20,5 30,5 40 hole\n", ["a.txt:1: has commas within numbers; write 10.5"]),
        ("txt", "a.txt", "10,5;20,5;30,5;40,5;hole\n", ["a.txt:1: has commas within numbers"]),
        ("txt", "a.txt", "10,20 30,40 50,60 70,80 hole\n", ["a.txt:1: has commas within numbers"]),
        ("txt", "a.txt", "1 2 3 4 0.9 hole\n", ["a.txt:1: has more than x1 y1 x2 y2 class"]),
        ("txt", "a.txt", "1 2 3 4 hole\n".encode("utf-16-le"), ["not UTF-8 text (UTF-16 without its mark?)"]),
        ("labelme", "a.json", '{"shapes": [{"label": "", "points": [[1, 2]]}]}', ["shape 1: has no `label`"]),
        ("yolo", "labels/a.txt", "-1 .5 .5 .1 .1\n", ["a.txt:1: must be numbers"]),
        ("yolo", "labels/a.txt", b"\xff\xfe\xff", ["a.txt:1: not UTF-8 text"]),
        ("yolo", "labels/b.txt", "0 .5 .5 .1 .1\n", ["has no text file for any of the 1 images"]),
        ("yolo", "data.yaml", "names: [a, *b]\n", ["has YAML aliases"]),
        ("yolo", "data.yaml", "names: [&x a, *x]\n", ["has YAML aliases"]),
        ("yolo", "data.yaml", "names: 5\n", ["`names` must be a list"]),
        ("yolo", "data.yaml", "names: [a, a]\n", ["`names` has 'a' twice"]),
        ("yolo", "data.yaml", "names: {x: a}\n", ["`names` must give each number a name"]),
        ("yolo", "data.yaml", "[1]\n", ["must be a mapping with `names`"]),
        ("yolo", "data.yaml", "names:\n\t- a\n", [":2: not valid YAML"]),
        ("yolo", "data.yaml", "names: " + "[" * 5000, ["data.yaml: lists or mappings are nested too deeply"]),
        ("txt", "a.txt", "1 2 3 4 hole\n1 2 3 hole\n", ["a.txt:2: must be x1 y1 x2 y2 class", "'1 2 3 hole'"]),
        ("txt", "a.txt", "1 2 3 nan hole\n", ["a.txt:1: must be x1 y1 x2 y2 class"]),
        ("txt", "a.txt", "1 2 3 1e400 hole\n", ["a.txt:1"]),
        ("txt", "a.txt", "-1.5e308 2 1.5e308 4 hole\n", ["a.txt:1: its box is too large"]),
        ("txt", "a.txt", "1 2 3 4\n", ["a.txt:1"]),
        ("txt", "a.txt", "1 2 3 4 5 6 7 8 plane 0\n", ["a.txt:1: has more than x1 y1 x2 y2 class (a polygon or a"]),
        ("txt", "a.txt", "1 2 3 4 hole 0.95\n", ["a.txt:1: has more than x1 y1 x2 y2 class"]),
        (
            "competition",
            "a.json",
            '[{"name": "a", "category": "x", "bbox": [1, 2, 3, 4], "score": 0.5}]',
            ["entry 0: has a score, so this is a file of results"],
        ),
        ("txt", "a.txt", "caf\xe9".encode("latin-1"), ["a.txt:1: not UTF-8 text"]),
        ("txt", "classes.txt", "a\na\n", ["classes.txt: has the class 'a' twice"]),
        ("txt", "classes.txt", "a\nb\nc\n", ["count from 0 or from 1?", "[1, 2]", "`1 a`"]),
        ("txt", "classes.txt", "1 a\n3 b\n", ["there is no name for class 2"]),
        ("csv", "a.csv", "", ["is empty"]),
        ("csv", "a.csv", "file,xmin,ymin,xmax,ymax\n", ["a.csv:1: the header has no column for: class"]),
        (
            "csv",
            "a.csv",
            "filename,xmni,ymin,xmax,ymax,class\n",
            ["no column for: box", "did you mean xmin by 'xmni'?"],
        ),
        (
            "csv",
            "a.csv",
            "file,xmin,ymin,xmax,ymax,class\na.jpg,1,2,x,4,hole\n",
            ["a.csv:2: its box must be four numbers"],
        ),
        ("csv", "a.csv", "file,xmin,ymin,xmax,ymax,class\n\na.jpg,1,2,3,,hole\n", ["a.csv:3: its box must be four"]),
        ("csv", "a.csv", "file,xmin,ymin,xmax,ymax,class\na.jpg,1,2,3\n", ["a.csv:2: has 4 values, but needs 6"]),
        ("csv", "a.csv", "file,xmin,ymin,xmax,ymax,class\na.jpg,1,2,3,4,\n", ["a.csv:2: its box has no class"]),
        ("csv", "a.csv", "file,xmin,ymin,xmax,ymax,class\n,1,2,3,4,a\n", ["a.csv:2: names no image"]),
        (
            "csv",
            "a.csv",
            'file,bbox,class\na.jpg,"[1, 2, 3]",a\n',
            ["a.csv:2: its box must be four numbers, not '[1, 2, 3]'"],
        ),
        ("csv", "a.csv", 'file,xmin,ymin,xmax,ymax,class\n"a.jpg,1,2,3,4,a\n', ["a.csv:", "not valid CSV"]),
        ("csv", "a.csv", "file,xmin,ymin,xmax,ymax,class,ignore\na,1,2,3,4,a,5\n", ["a.csv:2: must say 0 or 1", "'5'"]),
        ("labelme", "a.json", "[]", ["not a LabelMe file"]),
        ("labelme", "a.json", '{"shape": []}', ["did you mean 'shape'?"]),
        ("labelme", "a.json", '{"shapes": [3]}', ["shape 1: must be an object, not 3"]),
        (
            "labelme",
            "a.json",
            '{"shapes": [{"lable": "x", "points": []}]}',
            ["shape 1: has no `label`; did you mean 'lable'"],
        ),
        ("labelme", "a.json", '{"shapes": [{"label": "x", "points": [[1]]}]}', ["shape 1 ('x'): `points` must be"]),
        (
            "labelme",
            "a.json",
            '{"shapes": [{"label": "x", "points": [[NaN, 1]]}]}',
            ["shape 1 ('x'): `points` must be"],
        ),
        (
            "labelme",
            "a.json",
            '{"shapes": [{"label": "x", "points": [[1, 1]], "shape_type": "circle"}]}',
            ["two points"],
        ),
        (
            "labelme",
            "a.json",
            '{"shapes": [{"label": "x", "points": [[1, 1]], "flags": 3}]}',
            ["`flags` must be an object"],
        ),
        ("labelme", "a.json", '{"shapes": [{"label": "\\ud83d", "points": [[1, 1]]}]}', ["not valid Unicode"]),
        ("labelme", "a.json", '{"shapes":\n', ["a.json:2: not valid JSON"]),
        ("competition", "a.json", "{}", ["must hold a list"]),
        ("competition", "a.json", "[1]", ["entry 0: must be an object"]),
        (
            "competition",
            "a.json",
            '[{"name": "a", "bbx": [], "defect_name": "x"}]',
            ["entry 0: lacks bbox; rename 'bbx'"],
        ),
        ("competition", "a.json", '[{"name": "a", "bbox": []}]', ["entry 0: lacks defect_name"]),
        ("competition", "a.json", '[{"name": 3, "bbox": [], "defect_name": "x"}]', ["entry 0: `name` must be", "3"]),
        (
            "competition",
            "a.json",
            '[{"name": "a", "bbox": [1, 2, 3], "defect_name": "x"}]',
            ["entry 0 ('a'): bbox must be"],
        ),
        (
            "competition",
            "a.json",
            '[{"name": "a", "bbox": [1, 2, 3, 4], "defect_name": " "}]',
            ["must be the name of a class"],
        ),
        (
            "competition",
            "a.json",
            '[{"name": "a", "bbox": [1, 2, 3, 4e999], "defect_name": "b"}]',
            ["four finite numbers"],
        ),
    ],
)
def test_faults_are_one_line(tmp_path: Path, kind: str, name: str, text: str | bytes, words: list[str]) -> None:
    files: dict[str, str | bytes] = {}
    if kind == "yolo":
        files = {"images/a.jpg": "", "labels/a.txt": "0 .5 .5 .1 .1", "data.yaml": "names: [a, b]\n"}
        if name == "labels/b.txt":
            del files["labels/a.txt"]
    elif name == "classes.txt":
        files = {"a.txt": "1 2 3 4 1\n1 2 3 4 2\n"}
    write(tmp_path, {**files, name: text})
    source = tmp_path if kind in ("voc", "txt", "labelme") and name != "list.txt" else tmp_path / name
    if kind == "yolo" and name != "data.yaml":
        source = tmp_path / "labels"
    images = tmp_path / "images" if kind == "yolo" else None
    with pytest.raises(InputError) as error:
        read_annotations(source, images, kind)
    message = str(error.value)
    assert "\n" not in message and str(tmp_path) in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize("kind", ["voc", "txt", "labelme"])
def test_folders_without_annotations(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match="holds no"):
        read_annotations(tmp_path, None, kind)


def test_an_unknown_format_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean voc"):
        read_annotations(tmp_path, None, "vocs")


def test_notes_are_counted(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    slip = voc_object(more="<dificult>1</dificult>")
    write(tmp_path, {"Annotations/a.xml": voc(slip * 2, "other.jpg"), "a.jpg": ""})
    read_annotations(tmp_path / "Annotations", tmp_path)
    assert "objects have <dificult>, which is not read; did you mean <difficult>?: 2" in said.text
    assert "<filename> is not the image with their own name, which is taken: 1" in said.text
