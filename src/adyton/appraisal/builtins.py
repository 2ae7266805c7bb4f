"""The builtin functions that policies may call: those that compute on their arguments alone, and nothing else.

Left out on purpose: what reads the machine (``opa.runtime``, ``http.send``, ``net.lookup_ip_addr``), the clock
(``time.now_ns``), chance (``rand.*``, ``uuid.*``), what writes elsewhere (``trace``, ``print``), what parses or checks
programs and tokens (``rego.*``, ``io.jwt.*``, ``graphql.*``), and what is quick to blow up or rarely right here
(``regex.template_match``, ``graph.*``, ``yaml.*``, ``json.patch``, ``crypto.*``).
"""

from __future__ import annotations

ALLOWED = frozenset(
    """
    abs ceil floor round count sum product max min sort numbers.range
    concat contains endswith startswith format_int indexof indexof_n lower upper replace split sprintf substring
    trim trim_left trim_prefix trim_right trim_suffix trim_space to_number
    strings.reverse strings.any_prefix_match strings.any_suffix_match strings.count strings.replace_n
    is_array is_boolean is_null is_number is_object is_set is_string type_name
    intersection union walk array.concat array.reverse array.slice
    object.get object.keys object.remove object.subset object.union object.union_n object.filter
    json.is_valid json.marshal json.unmarshal
    base64.decode base64.encode base64.is_valid base64url.decode base64url.encode base64url.encode_no_pad
    hex.decode hex.encode
    regex.match regex.is_valid regex.split regex.find_n regex.replace glob.match glob.quote_meta
    bits.and bits.or bits.xor bits.lsh bits.rsh bits.negate semver.compare semver.is_valid
    units.parse units.parse_bytes time.parse_rfc3339_ns
    """.split()  # noqa: SIM905 -- one list for reading
)
FORBIDDEN_PLAIN = frozenset(
    """
    all any print trace re_match cast_array cast_boolean cast_null cast_object cast_set cast_string set_diff and or minus
    plus mul div rem eq equal neq lt lte gt gte assign query_reference_value
    """.split()  # noqa: SIM905 -- one list for reading
)
"""Names without a dot that a policy may not define, because somewhere they are builtins."""
REFERENCE_FUNCTION = "query_reference_value"
"""``query_reference_value(id)``: the reference value, or ``null`` if there is none or it has expired."""
