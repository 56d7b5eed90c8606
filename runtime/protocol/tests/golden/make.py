"""Makes the vectors in this folder with the real libraries.

    python3 -m venv V && V/bin/pip install "celery[msgpack,yaml,auth]==5.7.0" brotli backports.zstd
    V/bin/python make.py

Each line of a `.tsv` is: a base64 of what is read, then what it must become (`!` for "refused"), as JSON text.
"""

import base64, datetime, json, math, os, struct
import msgpack, yaml
from kombu import compression, serialization
from kombu.utils.json import dumps, loads
from celery.utils.saferepr import saferepr

HERE = os.path.dirname(os.path.abspath(__file__))
b64 = lambda data: base64.b64encode(data).decode()


def write(name, rows):
    with open(os.path.join(HERE, name), "w") as out:
        for row in rows:
            out.write("\t".join(row) + "\n")


# What kombu's own serializers write, and what kombu's JSON has for the same.
EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
SAMPLES = [
    [[2, 3], {}, EMBED],
    [[-1, -33, 127, 128, 255, 256, 65535, 65536, -128, -129, -32768, -32769, 2**32, -(2**31) - 1, 2**63 - 1, -(2**63)], {}, None],
    [[1.5, -0.0, 1e300, 1e16, 1e-7, 0.1, math.inf, -math.inf], {"flag": True, "no": False, "none": None}, {}],
    [["", "é", "😀", "a\"b\\c\n\t\x7f", "x" * 300], {"k" * 40: "v"}, {}],
    [[b"abc", b"\xff\x00", b"", bytes(range(256))], {}, {}],
    [[[], {}, [[[1]]], list(range(20)), {str(n): n for n in range(20)}], {}, {}],
]
YAML_ONLY = [
    [[2**64, -(2**200)], {}, {}],
    [[datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2, 3, 4, 5), datetime.datetime(2026, 1, 2, 3, 4, 5, 678900)], {}, {}],
    [[datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)], {}, {}],
    [["yes", "1", "1.5", "null", "~", "012", "0x1f", "1:30", "2026-01-02", "=", "<<", "", " ", "- a", "a: b", "#", "!x", "@"], {}, {}],
]
shared = ["s"]
YAML_ONLY.append([[shared, shared, {"again": shared}], {"x": shared}, {}])

rows = [(b64(msgpack.packb(sample, use_bin_type=True)), dumps(sample)) for sample in SAMPLES + [[[2**64 - 1], {}, {}]]]
rows.append((b64(msgpack.packb([struct.unpack("f", struct.pack("f", 0.1))[0]], use_single_float=True)), dumps([struct.unpack("f", struct.pack("f", 0.1))[0]])))
for key in (None, True, False, 7, -1.5, 1e16):
    rows.append((b64(msgpack.packb({key: 1})), json.dumps({key: 1})))
write("msgpack.tsv", rows)

rows = []
for sample in SAMPLES + YAML_ONLY:
    for text in (yaml.safe_dump(sample), yaml.safe_dump(sample, default_flow_style=True, allow_unicode=True)):
        rows.append((b64(text.encode()), dumps(sample)))

# What PyYAML's safe loader makes of a document, whoever wrote it.
DOCUMENTS = """
yes|No|TRUE|off|y|n|yEs|~|null|Null|nULL|''|"yes"|!!str yes|! yes|! 'yes'
0|-0|+5|007|08|0o12|0b101|-0b11|0b|0b_|0x1F|0X1F|-0x_f|1_000|_1|1:30|1:30:00|-1:30|1:60|01:30|0:30|99999999999999999999|0xffffffffffffffffffffffffffff|-0b1111111111111111111111111111111111111111111111111111111111111111111111111111|017777777777777777777777777
1.5|1.|.5|-.5|+.5|1e3|1.0e3|1.0e+3|1.e-3|1.5E+10|.inf|-.INF|+.Inf|.nan|.NaN|-.nan|1_0.2_5|._5|.5_|1:30.5|-1:30.25|1:60.5|1.5.5|1.0e+999|0.1|.|..|-|+|1:2:3.
2026-01-02|2026-1-2|2026-01-02T03:04:05|2026-01-02t03:04:05Z|2026-1-2 3:04:05|2026-01-02 03:04:05.5|2026-01-02T03:04:05.1234567|2026-01-02 03:04:05 +1|2026-01-02 03:04:05.5-02:30|2026-01-02T03:04:05+00:00|2026-13-01|2026-02-30|0000-01-01|2026-01-02T25:00:00|2026-01-02 03:04:05 +24:00|2026-01-02 03:04:05 +23:59|2026-01-02T03:04|2026-01-02T03:04:05.|2026-01-02T 03:04:05|20260102
!!int 5|!!int "5"|!!int 0x1f|!!int abc|!!int 1.5|!!float 3|!!float "1e3"|!!float .inf|!!float abc|!!bool yes|!!bool "ON"|!!bool 1|!!null x|!!null ''|!!str 5|!!binary aGVsbG8=|!!binary "/w=="|!!binary "a b c"|!!timestamp 2026-1-2|!!timestamp x|!!python/tuple [1]|!!python/name:os.system x|!local x|!!set {a, b}|!!omap [a: 1]|!!seq [1]|!!map {a: 1}|!!seq {a: 1}|!!map [1]|!!int [1]
=|[=]|{=: 1}|<<|[<<]|{<<: {a: 1}, b: 2}|{a: 9, <<: {a: 1, b: 2}}|{<<: [{a: 1}, {a: 2, b: 3}]}|{<<: 5}|{<<: [5]}|{<<: {a: 1}, <<: {a: 2}}|[&a {x: 1}, {<<: *a, y: 2}]|[{<<: &m {x: &n [1]}}, *m, *n]|{'<<': 1}|{"=": 1}
[&a [1, 2], *a, *a]|[&a 5, *a]|{&k key: 1, other: *k}|[&k key, {*k : 1}]|&a [*a]|[*missing]|[&a [1], &a [2], *a]|{? [1] : 2}|{? {a: 1} : 2}|[&d 2026-01-02, {*d : 1}]
{1: a}|{1.5: a}|{null: a}|{~: a}|{true: a}|{yes: a}|{2026-01-02: a}|{!!binary aGk=: a}|{.inf: a}|{0x10: a}|{a: 1, a: 2}|{1e3: a}
a: 1|- 1|# nothing|--- 1|%YAML 1.1|[1, 2|{a: 1|"\\x41"|'it''s'|"a\\nb"|[a, b,]|{a, b}|{a: , b: }|a: b: c|[1 2]|\t1|@x|`x|"\\ud83d\\ude00"|"unterminated|*|&|!|[,]|a:b
"""


def made(text):
    try:
        value = yaml.safe_load(text)
        if "{a: 1, a: 2}" in text:
            return dumps(value)
        return dumps(value)
    except Exception:
        return "!"


for line in DOCUMENTS.strip().split("\n"):
    for document in line.split("|"):
        document = document.replace("\\t", "\t").replace("\\\\", "\\")
        rows.append((b64(document.encode()), made(document)))
for document in ("a: 1\nb:\n  - x\n  - y\n", "a: |\n  text\n  more\nb: >\n  folded\n  text\n", "a:\n- 1\n- 2\n", "--- 1\n--- 2\n", "--- 1\n...\n", "a: &x\n  b: 1\nc: *x\n", "base: &b {x: 1}\nd:\n  <<: *b\n  y: 2\n", "a: 'x\n  y'\n", "%TAG !e! tag:example.com,2000:\n--- !e!foo x\n", "? a\n: 1\n", "- - 1\n  - 2\n- 3\n", "a: 1\na: 2\n", "\ufeffa: 1\n"):
    rows.append((b64(document.encode()), made(document)))
write("yaml.tsv", rows)

# Every compression under the name that kombu gives it, of one body.
BODY = dumps([[n % 7, "text %d" % n] for n in range(400)]).encode()
rows = []
for name in ("gzip", "bzip2", "lzma", "brotli", "zstd"):
    packed, media_type = compression.compress(BODY, name)
    rows.append((media_type, b64(packed)))
    rows.append((media_type, b64(compression.compress(b"", name)[0])))
import gzip

rows.append(("application/x-gzip", b64(gzip.compress(BODY, mtime=0))))
write("compressions.tsv", rows)
with open(os.path.join(HERE, "compressed.json"), "wb") as out:
    out.write(BODY)

# `argsrepr` and `kwargsrepr`.
rows = []
for value in (
    [], [1], [1, 2], ["it's", None, True, False], [[1, [2, [3, [4]]]]], [{"a": {"b": {"c": 1}}}], [[], {}, [[]], [{}], [[[]]], [[[[]]]], [[{}]], [[[{}]]]],
    [1.0, 1e22, 1e-7, math.nan, -math.inf, 10**40], ["é", "\n", "\\", "\"", "😀", "\x00\x7f"], [{"it's": "x", "": 1}], [{"k": [1, {"z": [1]}]}],
    list(range(1000, 1300)), ["x" * 1022], ["x" * 1023], ["x" * 1024], ["x" * 1025], ["é" * 1100], ["x" * 600, "y" * 600], ["a" * 1100, 1, 2], [{"k": list(range(300))}],
    [list(range(250)), 2, 3], [[[list(range(300)), 1], 2], 3], [{"k" * 1100: 1}], [{"k" * 1030: "v", "b": 2}], ["x" * 1018, "y"], ["x" * 1019, "y"], ["x" * 1020, "y"], ["x" * 1021, 5], ["'" * 1030],
    [{"a": "x" * 1010, "b": [1, 2]}], [{"a": "x" * 1013}], [{"a": "x" * 1020}], [["x" * 1020]], [["x" * 1021], 5], [list(range(300)), [1]], [10**1100], [10**1021, 3], [1] * 341, [1] * 342, [1] * 343, ["x" * 1021, [], 1], ["x" * 1021, {"a": 1}], [["x" * 1030, [1]], [2]],
):
    text = json.dumps(value)
    rows.append((b64(text.encode()), json.dumps(saferepr(tuple(value), 1024, maxlevels=3)), json.dumps(saferepr(value, 1024, maxlevels=3))))
for value in ({}, {"y": 3}, {"a": {"b": {"c": {"d": 1}}}}, {"k%d" % n: n for n in range(120)}, {"a": "x" * 1100, "b": 1}, {"a": [[[[1]]]]}, {"x" * 1018: 1}, {"x" * 1021: [1]}):
    rows.append((b64(json.dumps(value).encode()), "", json.dumps(saferepr(value, 1024, maxlevels=3))))
write("repr.tsv", rows)

# Times, by the parser that Celery's worker uses.
from dateutil.parser import isoparse

rows = []
for text in (
    "2026-01-02T12:00:00+00:00", "2026-01-02T12:00:00Z", "2026-01-02T12:00:00z", "2026-01-02T12:00:00", "2026-01-02 12:00:00.5", "2026-01-02T14:00:00+0200", "2026-01-02T14:00:00+02",
    "2026-01-02T07:00:00.000-05:00", "2026-01-02", "2026-01", "2026", "20260102", "20260102T120000", "20260102T120000Z", "2026-01-02T12", "2026-01-02T12:30", "2026-01-02T1230", "2026-01-02T12:00:00,5", "2026-01-02T24:00:00", "2026-01-02T24:00:01",
    "2026-W01-1", "2026W011", "2026-W01", "2026-002", "2026002", "2026-01-02T12:00:00.123456789Z", "2026-01-02T12:00:60", "2026-13-01", "2026-02-30", "", "not a date", "xx", "12:00", "2026-1-2", " 2026-01-02", "2026-01-02 ",
    "2026-01-02T12:00:00 +00:00", "2026-01-02T12:00:00+24:00", "2026-01-02T12:00:00+23:59", "2026-01-02T12:00:00-00:00", "2026-01-02T12:00:00+0", "2026-01-02T12:00Z", "2026-01-02T12+01", "9999-12-31T23:59:59-12:00", "9999-12-31T23:59:59+12:00", "0001-01-01T00:00:00+12:00", "0001-01-01T00:00:00", "0000-01-01", "10000-01-01", "-001-01-01", "2026-01-02T", "2026-01-02T12:", "2026-01-02T12:00:", "2026-01-02T12:00:00.", "2024-02-29", "2026-366", "2024-366", "2026-W53", "2026-W54-1",
    "\u0662\u0660\u0662\u0666-01-02", "2026-01-02T12:0a:00", "2026/01/02", "2026-01-02x12:00", "20260102T12:00:00", "2026-01-0212:00",
):
    try:
        time = isoparse(text)
        if time.tzinfo is None:
            time = time.replace(tzinfo=datetime.timezone.utc)
        delta = time - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
        made_ = str(delta // datetime.timedelta(microseconds=1))
    except Exception:
        made_ = "!"
    rows.append((b64(text.encode()), made_))
write("times.tsv", rows)

# Signed messages: certificates (with names in several attributes), and what Celery's serializer makes with their keys.
from celery.security.certificate import Certificate
from celery.security.key import PrivateKey
from celery.security.serialization import SecureSerializer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as keys
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID


def certificate(common_name, bits=2048, until=2126, key=None):
    key = key or rsa.generate_private_key(65537, bits)
    name = x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, "US"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Acmé"), x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(x509.random_serial_number())
    made = made.not_valid_before(datetime.datetime(2020, 1, 1)).not_valid_after(datetime.datetime(until, 1, 1)).sign(key, hashes.SHA256())
    pem = key.private_bytes(keys.Encoding.PEM, keys.PrivateFormat.PKCS8, keys.NoEncryption())
    return made.public_bytes(keys.Encoding.PEM), pem


rows = []
for name, bits, until, digest, serializer, value in (
    ("valid", 2048, 2126, "sha256", "json", [[1, 2], {}, EMBED]),
    ("separator", 2048, 2126, "sha256", "yaml", [["\x00\x01"], {}, None]),
    ("odd", 2049, 2126, "sha256", "json", [[3], {}, None]),
    ("large", 4096, 2126, "sha256", "msgpack", [[b"\x00\x01\xff"], {}, None]),
    ("sha512", 2048, 2126, "sha512", "json", [[4], {}, None]),
    ("expired", 2048, 2021, "sha256", "json", [[5], {}, None]),
    ("pickle", 2048, 2126, "sha256", "pickle", [[6], {}, None]),
):
    public, private = certificate(name, bits, until)
    signer = SecureSerializer(PrivateKey(private), Certificate(public), digest=digest, serializer=serializer)
    rows.append((name, b64(public), signer.serialize(value)))
curve, _ = certificate("curve", key=ec.generate_private_key(ec.SECP256R1()))
rows.append(("curve", b64(curve), ""))
write("signed.tsv", rows)
