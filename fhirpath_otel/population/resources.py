"""One builder for each kind of resource; each gives FHIR JSON in which decimals are `decimal.Decimal`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from fhirpath_otel.population.draw import Draw
from fhirpath_otel.population.vocabulary import (
    CLASSES,
    CONDITIONS,
    DIASTOLIC,
    ENCOUNTERS,
    FAMILIES,
    GIVEN,
    ICD_10,
    LOINC,
    MARITAL,
    MEASURES,
    RACES,
    SMOKING,
    SNOMED,
    STREETS,
    SYSTOLIC,
    TERMINOLOGY,
    TOWNS,
    UCUM,
    US_CORE,
    V3,
    Measure,
)

Resource = dict[str, Any]

TODAY = date(2026, 1, 1)


def _concept(system: str, code: str, display: str, *others: Mapping[str, str]) -> Resource:
    return {"coding": [{"system": system, "code": code, "display": display}, *others], "text": display}


def _meta(draw: Draw, profile: str) -> Resource:
    moment = draw.moment(TODAY - timedelta(days=draw.below(300)))
    return {
        "versionId": str(1 + draw.below(9)),
        "lastUpdated": moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{draw.below(1000):03d}Z",
        "profile": [US_CORE + profile],
    }


def patient(draw: Draw) -> tuple[Resource, date, date]:
    """A Patient, with the day of birth and the last day of their life so far."""
    gender = "female" if draw.chance(0.5) else "male"
    family, given = draw.one(FAMILIES), draw.some(GIVEN[gender], 1 + draw.below(3))
    born = TODAY - timedelta(days=365 + draw.below(365 * 94))
    last = born + timedelta(days=300 + draw.below((TODAY - born).days - 300)) if draw.chance(0.07) else TODAY
    resource = {
        "resourceType": "Patient",
        "id": draw.identifier(),
        "meta": _meta(draw, "patient"),
        "text": _narrative(f"{' '.join(given)} {family}, born in {born.year}"),
        "extension": _patient_extensions(draw, gender),
        "identifier": _identifiers(draw),
        "active": draw.chance(0.95),
        "name": _names(draw, gender, family, given, born),
        "telecom": _telecoms(draw),
        "gender": gender,
        **_birth(draw, born),
        **_death(draw, last),
        "address": [_address(draw, use) for use in (("home", "work") if draw.chance(0.15) else ("home",))],
    }
    if draw.chance(0.9):
        resource["maritalStatus"] = _concept(f"{V3}MaritalStatus", *draw.one(MARITAL))
    if draw.chance(0.4):
        resource["contact"] = [_contact(draw, family) for _ in range(1 + draw.below(2))]
    resource["communication"] = [
        {"language": _concept("urn:ietf:bcp:47", "en-US", "English (United States)")}
    ]
    return resource, born, last


def _narrative(text: str) -> Resource:
    return {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{text}</div>'}


def _birth(draw: Draw, born: date) -> Resource:
    elements: Resource = {"birthDate": born.isoformat()}
    if draw.chance(0.2):
        url = "http://hl7.org/fhir/StructureDefinition/patient-birthTime"
        birth_time = {"url": url, "valueDateTime": draw.zoned(draw.moment(born))}
        elements["_birthDate"] = {"extension": [birth_time]}
    if draw.chance(0.8):
        twin = draw.chance(0.05)
        elements |= {"multipleBirthInteger": 1 + draw.below(3)} if twin else {"multipleBirthBoolean": False}
    return elements


def _death(draw: Draw, last: date) -> Resource:
    if last < TODAY:
        return {"deceasedDateTime": last.isoformat()}
    return {"deceasedBoolean": draw.chance(0.03)} if draw.chance(0.3) else {}


def _patient_extensions(draw: Draw, gender: str) -> list[Resource]:
    code, display = draw.one(RACES)
    category = {"system": "urn:oid:2.16.840.1.113883.6.238", "code": code, "display": display}
    race = [{"url": "ombCategory", "valueCoding": category}, {"url": "text", "valueString": display}]
    return [
        {"url": f"{US_CORE}race", "extension": race},
        {"url": f"{US_CORE}birthsex", "valueCode": gender[0].upper()},
    ]


def _identifiers(draw: Draw) -> list[Resource]:
    record = {"use": "usual", **_identifier("MR", "Medical Record Number", f"{draw.below(10**8):08d}")}
    if draw.chance(0.3):
        return [record]
    number = f"{draw.below(10**4):04d}-{draw.below(10**6):06d}"
    return [record, {"use": "official", **_identifier("SN", "Subscriber Number", number)}]


def _identifier(code: str, display: str, value: str) -> Resource:
    kind = _concept(f"{TERMINOLOGY}v2-0203", code, display)
    return {"type": kind, "system": f"urn:example:{code.lower()}", "value": value}


def _names(draw: Draw, gender: str, family: str, given: list[str], born: date) -> list[Resource]:
    prefix = "Ms." if gender == "female" else "Mr."
    names: list[Resource] = [{"use": "official", "family": family, "given": given, "prefix": [prefix]}]
    if draw.chance(0.5):
        names.append({"use": "usual", "given": given[:1]})
    if gender == "female" and born.year < 1995 and draw.chance(0.4):
        married = (born + timedelta(days=365 * (20 + draw.below(10)))).isoformat()
        maiden = {"use": "maiden", "family": draw.one(FAMILIES), "given": given, "period": {"end": married}}
        names.append(maiden)
    return names


def _telecoms(draw: Draw) -> list[Resource]:
    telecoms: list[Resource] = [{"system": "phone", "value": _phone(draw), "use": "home", "rank": 1}]
    if draw.chance(0.6):
        telecoms.append({"system": "phone", "value": _phone(draw), "use": "mobile", "rank": 2})
    if draw.chance(0.5):
        value = f"mail{draw.below(10**6):06d}@example.org"
        telecoms.append({"system": "email", "value": value, "use": draw.one(("home", "work"))})
    return telecoms


def _phone(draw: Draw) -> str:
    return f"555-{draw.below(1000):03d}-{draw.below(10000):04d}"


def _address(draw: Draw, use: str) -> Resource:
    town, state, code = draw.one(TOWNS)
    position = [
        {"url": "latitude", "valueDecimal": Decimal(draw.below(180 * 10**6) - 90 * 10**6).scaleb(-6)},
        {"url": "longitude", "valueDecimal": Decimal(draw.below(360 * 10**6) - 180 * 10**6).scaleb(-6)},
    ]
    return {
        "extension": [{"url": "http://hl7.org/fhir/StructureDefinition/geolocation", "extension": position}],
        "use": use,
        "line": [f"{1 + draw.below(240)} {draw.one(STREETS)}"] + (["Apt. 4"] if draw.chance(0.2) else []),
        "city": town,
        "state": state,
        "postalCode": code,
        "country": "US",
    }


def _contact(draw: Draw, family: str) -> Resource:
    gender = "female" if draw.chance(0.5) else "male"
    return {
        "relationship": [_concept(f"{TERMINOLOGY}v2-0131", "N", "Next-of-Kin")],
        "name": {"family": family, "given": [draw.one(GIVEN[gender])]},
        "telecom": [{"system": "phone", "value": _phone(draw)}],
        "gender": gender,
    }


def encounter(draw: Draw, subject: Resource, born: date, last: date) -> tuple[Resource, datetime]:
    """An Encounter of the last ten years of a life, with its beginning."""
    begin = draw.moment(last - timedelta(days=draw.below(min(3650, (last - born).days))))
    code, display = draw.one(CLASSES)
    hours = draw.below(96) if code == "IMP" else 0
    period = {"start": draw.zoned(begin), "end": draw.zoned(begin + timedelta(hours=hours, minutes=15))}
    performer = _concept(f"{V3}ParticipationType", "PPRF", "primary performer")
    resource = {
        "resourceType": "Encounter",
        "id": draw.identifier(),
        "meta": _meta(draw, "encounter"),
        "status": "finished" if draw.chance(0.95) else "in-progress",
        "class": {"system": f"{V3}ActCode", "code": code, "display": display},
        "type": [_concept(SNOMED, *draw.one(ENCOUNTERS))],
        "subject": subject,
        "participant": [{"type": [performer], "period": period, "individual": _practitioner(draw)}],
        "period": period,
        "serviceProvider": {"reference": "Organization/1", "display": "Fairmere General Hospital"},
    }
    return resource, begin


def _practitioner(draw: Draw) -> Resource:
    number = draw.below(len(FAMILIES))
    return {"reference": f"Practitioner/{number + 1}", "display": f"Dr. {FAMILIES[number]}"}


def condition(draw: Draw, about: Resource, begin: datetime) -> Resource:
    """A Condition diagnosed in an encounter, coded twice, some of them resolved."""
    snomed, icd, display = draw.one(CONDITIONS)
    resolved = draw.chance(0.4)
    status = ("resolved", "Resolved") if resolved else ("active", "Active")
    resource = {
        "resourceType": "Condition",
        "id": draw.identifier(),
        "meta": _meta(draw, "condition"),
        "clinicalStatus": _concept(f"{TERMINOLOGY}condition-clinical", *status),
        "verificationStatus": _concept(f"{TERMINOLOGY}condition-ver-status", "confirmed", "Confirmed"),
        "category": [
            _concept(f"{TERMINOLOGY}condition-category", "encounter-diagnosis", "Encounter Diagnosis")
        ],
        "code": _concept(SNOMED, snomed, display, {"system": ICD_10, "code": icd, "display": display}),
        **about,
        "onsetDateTime": draw.zoned(begin),
        "recordedDate": draw.zoned(begin),
    }
    if resolved:
        resource["abatementDateTime"] = draw.zoned(begin + timedelta(days=1 + draw.below(60)))
    return resource


def _observation(draw: Draw, about: Resource, begin: datetime, category: str, code: Resource) -> Resource:
    return {
        "resourceType": "Observation",
        "id": draw.identifier(),
        "meta": _meta(draw, "simple-observation"),
        "status": "final" if draw.chance(0.9) else "amended",
        "category": [_concept(f"{TERMINOLOGY}observation-category", category, category)],
        "code": code,
        **about,
        "effectiveDateTime": draw.zoned(begin),
        "issued": begin.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "performer": [_practitioner(draw)],
    }


def _quantity(measure: Measure, value: Decimal) -> Resource:
    return {"value": value, "unit": measure.unit, "system": UCUM, "code": measure.unit}


def _measurement(draw: Draw, about: Resource, begin: datetime) -> Resource:
    """A vital sign or laboratory value: a quantity with its reference range; rarely the reason why there is none."""
    measure = draw.one(MEASURES)
    code = _concept(LOINC, measure.code, measure.display)
    observation = _observation(draw, about, begin, measure.category, code)
    if draw.chance(0.02):
        reason = _concept(f"{TERMINOLOGY}data-absent-reason", "not-performed", "Not Performed")
        return observation | {"dataAbsentReason": reason}
    value = measure.at(draw.random())
    low, high = (_quantity(measure, measure.at(share)) for share in (0.2, 0.8))
    observation["valueQuantity"] = _quantity(measure, value)
    if value > high["value"]:
        observation["interpretation"] = [_concept(f"{V3}ObservationInterpretation", "H", "High")]
    observation["referenceRange"] = [{"low": low, "high": high, "text": f"{low['value']} to {high['value']}"}]
    return observation


def _blood_pressure(draw: Draw, about: Resource, begin: datetime) -> Resource:
    panel = _concept(LOINC, "85354-9", "Blood pressure panel with all children optional")
    parts = (SYSTOLIC, DIASTOLIC)
    codes = [_concept(LOINC, part.code, part.display) for part in parts]
    values = [_quantity(part, part.at(draw.random())) for part in parts]
    components = [{"code": code, "valueQuantity": value} for code, value in zip(codes, values, strict=True)]
    return _observation(draw, about, begin, "vital-signs", panel) | {"component": components}


def _answer(draw: Draw, about: Resource, begin: datetime) -> Resource:
    """What a patient answers: a coded value, a text or yes and no."""
    kind = draw.below(3)
    if kind == 0:
        code = _concept(LOINC, "72166-2", "Tobacco smoking status")
        value: Resource = {"valueCodeableConcept": _concept(SNOMED, *draw.one(SMOKING))}
    elif kind == 1:
        code = _concept(LOINC, "11323-3", "Health status")
        value = {"valueString": draw.one(("Excellent", "Very good", "Good", "Fair", "Poor"))}
    else:
        code = _concept(LOINC, "63513-6", "Are you covered by health insurance")
        value = {"valueBoolean": draw.chance(0.9)}
    return _observation(draw, about, begin, "survey", code) | value


# One entry for each share: three fifths measurements, a fifth blood pressures, a fifth answers.
OBSERVATIONS: tuple[Callable[[Draw, Resource, datetime], Resource], ...] = (
    _measurement,
    _measurement,
    _measurement,
    _blood_pressure,
    _answer,
)
