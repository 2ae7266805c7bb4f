"""Keys inside a PKCS#11 token: their templates, their public halves, and what is computed with them."""

from __future__ import annotations

import os
from typing import Any, cast

from asn1crypto import core
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11 import exceptions as p11
from pkcs11.mechanisms import MGF, GCMParams
from pkcs11.util.ec import decode_ec_private_key, decode_ec_public_key, encode_named_curve_parameters
from pkcs11.util.rsa import decode_rsa_private_key, decode_rsa_public_key

from adyton.errors import ConfigError, Unavailable
from adyton.stores.backends.port import KeyKind, Signing
from adyton.stores.backends.signatures import CURVES, digest, refused, unknown
from adyton.stores.backends.signatures import kind_of as kind_of_spki

NEVER = (
    *(p11.MechanismInvalid, p11.MechanismParamInvalid, p11.FunctionNotSupported, p11.KeyTypeInconsistent),
    *(p11.ArgumentsBad, p11.TemplateInconsistent, p11.AttributeTypeInvalid, p11.AttributeValueInvalid),
    *(p11.KeySizeRange, p11.DomainParamsInvalid),
)
"""A token that works says these to what it does not know."""
REFUSALS = (p11.GeneralError, p11.EncryptedDataInvalid, p11.EncryptedDataLenRange, p11.FunctionFailed, p11.DataInvalid)
_FORM = b"\x01"
_NAMES = {KeyKind.P256: "secp256r1", KeyKind.P384: "secp384r1", KeyKind.P521: "secp521r1"}
_ED25519_OID = core.ObjectIdentifier("1.3.101.112").dump()
_ED25519_NAME = core.PrintableString("edwards25519").dump()
_PRIVATE = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.PRIVATE: True}
_PSS = {
    Signing.PS256: (Mechanism.SHA256_RSA_PKCS_PSS, (Mechanism.SHA256, MGF.SHA256, 32)),
    Signing.PS384: (Mechanism.SHA384_RSA_PKCS_PSS, (Mechanism.SHA384, MGF.SHA384, 48)),
    Signing.PS512: (Mechanism.SHA512_RSA_PKCS_PSS, (Mechanism.SHA512, MGF.SHA512, 64)),
}
_PKCS1 = {
    Signing.RS256: Mechanism.SHA256_RSA_PKCS,
    Signing.RS384: Mechanism.SHA384_RSA_PKCS,
    Signing.RS512: Mechanism.SHA512_RSA_PKCS,
}
_OAEP = {"sha-256": (Mechanism.SHA256, MGF.SHA256, None), "sha-1": (Mechanism.SHA_1, MGF.SHA1, None)}


def generate(session: Any, kind: KeyKind, label: str, identifier: bytes) -> None:
    """A key or pair in the token."""
    given = {"id": identifier, "label": label, "store": True}
    if kind is KeyKind.AES_256:
        uses = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
        session.generate_key(KeyType.AES, 256, capabilities=uses, template=_PRIVATE, **given)
        return
    if kind.rsa_bits:
        uses = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT | MechanismFlag.SIGN | MechanismFlag.VERIFY
        session.generate_keypair(KeyType.RSA, kind.rsa_bits, capabilities=uses, private_template=_PRIVATE, **given)
        return
    uses = MechanismFlag.SIGN | MechanismFlag.VERIFY
    if kind is KeyKind.ED25519:
        parameters, key_type = _ED25519_NAME, KeyType.EC_EDWARDS
    else:
        parameters, key_type = encode_named_curve_parameters(_NAMES[kind]), KeyType.EC
    domain = session.create_domain_parameters(key_type, {Attribute.EC_PARAMS: parameters}, local=True)
    domain.generate_keypair(capabilities=uses, private_template=_PRIVATE, **given)


def importable(kind: KeyKind, label: str, identifier: bytes, material: bytes) -> list[dict[Any, Any]]:
    """Objects to create for a key that was made elsewhere; ``ConfigError`` if it is not of this kind."""
    named = {Attribute.ID: identifier, Attribute.LABEL: label, Attribute.TOKEN: True}
    if kind is KeyKind.AES_256:
        if len(material) != 32:
            raise _not_a_key(kind)
        uses = {Attribute.ENCRYPT: True, Attribute.DECRYPT: True}
        secret = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.KEY_TYPE: KeyType.AES, Attribute.VALUE: material}
        return [{**secret, **named, **uses, **_PRIVATE}]
    try:
        key = serialization.load_der_private_key(material, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _not_a_key(kind) from error
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if kind_of_spki(spki) is not kind:
        raise _not_a_key(kind)
    signs, verifies = {Attribute.SIGN: True}, {Attribute.VERIFY: True}
    traditional = serialization.PrivateFormat.TraditionalOpenSSL
    if isinstance(key, rsa.RSAPrivateKey):
        der = key.private_bytes(serialization.Encoding.DER, traditional, serialization.NoEncryption())
        point = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
        private = {**decode_rsa_private_key(der), **signs, Attribute.DECRYPT: True}
        public = {**decode_rsa_public_key(point), **verifies, Attribute.ENCRYPT: True}
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        der = key.private_bytes(serialization.Encoding.DER, traditional, serialization.NoEncryption())
        private = {**decode_ec_private_key(der), **signs}
        public = {**decode_ec_public_key(spki), **verifies}
    else:
        raise unknown("taking in an ed25519 key")
    return [{**private, **named, **_PRIVATE}, {**public, **named}]


def _not_a_key(kind: KeyKind) -> ConfigError:
    return ConfigError("not a key of this kind", code="key_material_invalid", expected=kind.value)


def spki(public: Any) -> bytes:
    """SubjectPublicKeyInfo of a public key object."""
    key: Any
    try:
        if public.key_type == KeyType.RSA:
            modulus = int.from_bytes(public[Attribute.MODULUS], "big")
            key = rsa.RSAPublicNumbers(int.from_bytes(public[Attribute.PUBLIC_EXPONENT], "big"), modulus).public_key()
        else:
            kind, point = _curve(public), cast("bytes", core.OctetString.load(public[Attribute.EC_POINT]).native)
            if kind is KeyKind.ED25519:
                key = ed25519.Ed25519PublicKey.from_public_bytes(point)
            else:
                key = ec.EllipticCurvePublicKey.from_encoded_point(CURVES[kind](), point)
    except ValueError as error:
        raise Unavailable("the device sent no public key", code="public_key_foreign") from error
    made: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return made


def kind_of(key: Any) -> KeyKind:
    """Of a private key object."""
    if key.key_type != KeyType.RSA:
        return _curve(key)
    bits = int.from_bytes(key[Attribute.MODULUS], "big").bit_length()
    for kind in KeyKind:
        if kind.rsa_bits == bits:
            return kind
    raise unknown(f"RSA of {bits} bits")


def _curve(key: Any) -> KeyKind:
    parameters = bytes(key[Attribute.EC_PARAMS])
    if parameters in {_ED25519_OID, _ED25519_NAME}:
        return KeyKind.ED25519
    for kind, name in _NAMES.items():
        if parameters == encode_named_curve_parameters(name):
            return kind
    raise unknown("this curve")


def gcm_encrypt(key: Any, plaintext: bytes, aad: bytes) -> bytes:
    """Form (1 byte, 1), nonce (12, random), ciphertext, tag (16)."""
    nonce = os.urandom(12)
    sealed = key.encrypt(plaintext, mechanism=Mechanism.AES_GCM, mechanism_param=_gcm(nonce, aad))
    return _FORM + nonce + bytes(sealed)


def gcm_decrypt(key: Any, ciphertext: bytes, aad: bytes) -> bytes:
    """What ``gcm_encrypt`` was given."""
    if len(ciphertext) < 29 or ciphertext[:1] != _FORM:
        raise refused()
    parameters = _gcm(ciphertext[1:13], aad)
    return bytes(key.decrypt(ciphertext[13:], mechanism=Mechanism.AES_GCM, mechanism_param=parameters))


def _gcm(nonce: bytes, aad: bytes) -> Any:
    return GCMParams(nonce, aad or None, 128)


def oaep_encrypt(spki_: bytes, plaintext: bytes, aad: bytes, hash_name: str) -> bytes:
    """RSA-OAEP with one hash for label and mask."""
    if aad:
        raise unknown("additional data with an RSA key")
    public = serialization.load_der_public_key(spki_)
    if not isinstance(public, rsa.RSAPublicKey):
        raise unknown("encryption with this key")
    made: Any = hashes.SHA256 if hash_name == "sha-256" else hashes.SHA1
    try:
        return public.encrypt(plaintext, padding.OAEP(padding.MGF1(made()), made(), None))
    except ValueError as error:
        raise ConfigError("too much to encrypt in a device", code="plaintext_too_large", got=len(plaintext)) from error


def oaep_decrypt(key: Any, ciphertext: bytes, aad: bytes, hash_name: str) -> bytes:
    """In the token; a token that does not know the hash says so."""
    if aad:
        raise unknown("additional data with an RSA key")
    if key.key_type != KeyType.RSA:
        raise unknown("decryption with this key")
    return bytes(key.decrypt(ciphertext, mechanism=Mechanism.RSA_PKCS_OAEP, mechanism_param=_OAEP[hash_name]))


def sign(key: Any, algorithm: Signing, message: bytes) -> bytes:
    """A JOSE signature."""
    if algorithm is Signing.EDDSA:
        return bytes(key.sign(message, mechanism=Mechanism.EDDSA))
    if algorithm in _PSS:
        mechanism, parameters = _PSS[algorithm]
        return bytes(key.sign(message, mechanism=mechanism, mechanism_param=parameters))
    if algorithm in _PKCS1:
        return bytes(key.sign(message, mechanism=_PKCS1[algorithm]))
    return bytes(key.sign(digest(algorithm, message), mechanism=Mechanism.ECDSA))
