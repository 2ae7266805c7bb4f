"""XML documents with one enveloped signature over all of them (XMLDSig core 1.1), as strictly as it can be read.

Allowed is exactly one shape: one ``Signature`` as a child of the root, one reference with the empty URI, the transforms
*enveloped signature* and *C14N* (1.0 or 1.1, without comments), SHA-384 digests, ECDSA P-384. What is handed out as the
document is the canonical text that the digest is over, so nothing can be read that was not signed (XML wrapping, comments
between the parts of a value). No DTD, no entities, no network, no huge trees; UTF-8 only.

The certificates in it are a claim of its author. Whose key must have signed is the caller's question.
"""

from __future__ import annotations

import copy
import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from lxml import etree

from adyton.crypto.ecdsa import verify_p384
from adyton.errors import EndorsementMalformed, SignatureInvalid
from adyton.wire import b64

MAX_SIZE = 1024 * 1024
MAX_ELEMENTS = 20_000
MAX_ATTRIBUTES = 256  # of one element; the time that libxml2 takes grows with the square of them
MAX_NAMESPACES = 256  # declarations in the whole document, for the same reason
MAX_CERTIFICATES = 8
SPEC = "XMLDSig core 1.1"

_DS = "{http://www.w3.org/2000/09/xmldsig#}"
_C14N = frozenset({"http://www.w3.org/2006/12/xml-c14n11", "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"})
_ENVELOPED = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
_SHA384 = "http://www.w3.org/2001/04/xmldsig-more#sha384"
_ECDSA_SHA384 = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
_XML = "{http://www.w3.org/XML/1998/namespace}"
_UNREADABLE = (etree.LxmlError, SyntaxError, ValueError, TypeError, AttributeError, LookupError)


@dataclass(frozen=True, slots=True)
class SignedXml:
    """A document and what its signature says; nothing of it is verified yet.

    ``content`` is the canonical text without the signature, ``signed_info`` the canonical text that is signed,
    ``digest`` 48 bytes, ``signature`` r and s of 48 bytes each, big-endian; ``certificates`` DER in the order given.
    """

    content: bytes
    signed_info: bytes
    digest: bytes
    signature: bytes
    certificates: tuple[bytes, ...]

    def digest_matches(self) -> bool:
        """Whether the document is the one that the reference is about."""
        return hmac.compare_digest(hashlib.sha384(self.content).digest(), self.digest)

    def is_signed_by(self, key: ec.EllipticCurvePublicKey) -> bool:
        """Whether ``key`` (P-384, else ``ValueError``) signed the reference. The digest is a question of its own."""
        try:
            verify_p384(key, self.signature, self.signed_info, size=48, byteorder="big")
        except SignatureInvalid:
            return False
        return True


def parse(document: bytes) -> SignedXml:
    """Read a signed document, or ``EndorsementMalformed``."""
    try:
        return _parse(document)
    except _Wrong as error:
        raise _malformed(str(error)) from error
    except _UNREADABLE as error:
        raise _malformed("it cannot be read") from error


def read(content: bytes) -> etree._Element:
    """The root of a text without a signature, such as ``SignedXml.content``, or ``EndorsementMalformed``."""
    try:
        return _tree(content).getroot()
    except _Wrong as error:
        raise _malformed(str(error)) from error
    except _UNREADABLE as error:
        raise _malformed("it cannot be read") from error


class _Wrong(Exception):
    """Why a document is refused."""


def _tree(document: bytes) -> etree._ElementTree:
    if len(document) > MAX_SIZE:
        raise _Wrong(f"larger than {MAX_SIZE} bytes")
    if b"<!DOCTYPE" in document or b"<!ENTITY" in document:
        raise _Wrong("a document type or entities")
    document.decode("utf-8")
    # No tag has a "<" inside, and each attribute has an "=": counted before a parser that would be kept busy sees them.
    if any(piece.count(b"=") > MAX_ATTRIBUTES for piece in document.split(b"<")):
        raise _Wrong(f"more than {MAX_ATTRIBUTES} attributes in one element")
    if document.count(b"xmlns") > MAX_NAMESPACES:
        raise _Wrong(f"more than {MAX_NAMESPACES} declarations of name spaces")
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        attribute_defaults=False,
        huge_tree=False,
        recover=False,
        remove_blank_text=False,
        strip_cdata=False,
    )
    tree = etree.fromstring(document, parser).getroottree()
    if _has_document_type(tree):
        raise _Wrong("a document type")
    elements = sum(1 for _ in tree.iter())
    if elements > MAX_ELEMENTS:
        raise _Wrong(f"more than {MAX_ELEMENTS} nodes")
    return tree


def _has_document_type(tree: Any) -> bool:
    return bool(tree.docinfo.doctype) or tree.docinfo.internalDTD is not None


def _parse(document: bytes) -> SignedXml:
    tree = _tree(document)
    root = tree.getroot()
    signatures = list(root.iter(_DS + "Signature"))
    if len(signatures) != 1 or signatures[0].getparent() is not root:
        raise _Wrong("not exactly one signature, below the root")
    if b"xml:" in document and any(
        str(name).startswith(_XML) for element in root.iter(etree.Element) for name in element.attrib
    ):
        raise _Wrong("attributes of the xml: namespace")  # C14N 1.0 and 1.1 inherit them differently
    signature = signatures[0]
    signed_info, value, key_info = _children(signature, "SignedInfo", "SignatureValue", "KeyInfo")
    method, algorithm, reference = _children(signed_info, "CanonicalizationMethod", "SignatureMethod", "Reference")
    _algorithm(method, _C14N)
    _algorithm(algorithm, frozenset({_ECDSA_SHA384}))
    if reference.items() != [("URI", "")]:
        raise _Wrong("the reference is not to the whole document")
    transforms, digest_method, digest = _children(reference, "Transforms", "DigestMethod", "DigestValue")
    enveloped, canonical = _children(transforms, "Transform", "Transform")
    _algorithm(enveloped, frozenset({_ENVELOPED}))
    _algorithm(canonical, _C14N)
    _algorithm(digest_method, frozenset({_SHA384}))
    (data,) = _children(key_info, "X509Data")
    certificates = list(data)
    if not 1 <= len(certificates) <= MAX_CERTIFICATES or any(
        element.tag != _DS + "X509Certificate" for element in certificates
    ):
        raise _Wrong(f"not 1 to {MAX_CERTIFICATES} certificates")
    parts = (_canonical_part(signed_info), _base64(digest, 48), _base64(value, 96))
    encoded = tuple(_base64(element) for element in certificates)
    return SignedXml(_without(tree, signature), *parts, certificates=encoded)


def _children(element: etree._Element, *names: str) -> list[etree._Element]:
    """The element's children, which must be exactly these, with nothing but white space between them."""
    found = list(element)
    if [child.tag for child in found] != [_DS + name for name in names]:
        raise _Wrong(f"{str(element.tag).rpartition('}')[2]} does not hold {', '.join(names)}")
    if any(text and text.strip() for text in (element.text, *(child.tail for child in found))):
        raise _Wrong("text between the elements of a signature")
    return found


def _algorithm(element: etree._Element, allowed: frozenset[str]) -> None:
    if list(element.attrib) != ["Algorithm"] or element.attrib["Algorithm"] not in allowed or len(element):
        raise _Wrong("an algorithm or a parameter of one that is not of this format")


def _base64(element: etree._Element, size: int | None = None) -> bytes:
    if len(element) or element.attrib:
        raise _Wrong("a value that is not plain text")
    data = b64.decode("".join((element.text or "").split()))
    if size is not None and len(data) != size:
        raise _Wrong(f"a value that has not {size} bytes")
    return data


def _without(tree: etree._ElementTree, signature: etree._Element) -> bytes:
    """The canonical text of the document once its signature is taken out; the text after the signature stays in place."""
    root = tree.getroot()
    tail = signature.tail or ""
    previous = signature.getprevious()
    if previous is None:
        root.text = (root.text or "") + tail
    else:
        previous.tail = (previous.tail or "") + tail
    signature.tail = None
    root.remove(signature)
    return etree.tostring(tree, method="c14n", with_comments=False)


def _canonical_part(element: etree._Element) -> bytes:
    """The canonical text of a part: as a root of its own that declares every name space in force there."""
    namespaces: Any = element.nsmap  # the default one is under None
    apex = etree.Element(element.tag, nsmap=namespaces)
    apex.text = element.text
    for name, attribute in element.items():
        apex.set(name, attribute)
    for child in element:
        apex.append(copy.deepcopy(child))
    return etree.tostring(apex, method="c14n", with_comments=False)


def _malformed(reason: str) -> EndorsementMalformed:
    return EndorsementMalformed(
        f"not a signed XML document of the form that is read here: {reason}",
        code="xml_malformed",
        field="document",
        spec=SPEC,
    )
