"""What the people of the population are called, where they live, and what can be found on them.

Everybody is invented; the codes are LOINC's, SNOMED CT's and HL7's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

FAMILIES = (
    "Amsel", "Birkenfeld", "Carreño", "Dunmore", "Eskildsen", "Fjordvik", "Grünwald", "Hartigan", "Ibarra", "Jokinen",
    "Kowalczuk", "Lindqvist", "Marchetti", "Nakagawa", "Oyelaran", "Petrov", "Quiroga", "Rosenthal", "Søndergaard",
    "Tamm", "Uzun", "Vasquez", "Winterbourne", "Xanthos", "Yildirim", "Zapletal", "O'Shea", "de la Cruz", "Þórsdóttir",
)  # fmt: skip
GIVEN = {
    "female": ("Ada", "Beatriz", "Chiara", "Dagny", "Elif", "Frida", "Greta", "Hana", "Ingrid", "Jo", "Kaia", "Lucía"),
    "male": ("Anton", "Bruno", "Caspar", "Dmitri", "Emre", "Finn", "Goran", "Hugo", "Ivo", "Jonas", "Kenji", "Luís"),
}  # fmt: skip
TOWNS = (
    ("Ashford", "Kent", "03101"), ("Brookhaven", "Ohio", "44121"), ("Cedar Falls", "Iowa", "50613"),
    ("Dunwich", "Vermont", "05001"), ("Elmstead", "Oregon", "97201"), ("Fairmere", "Maine", "04101"),
)  # fmt: skip
STREETS = ("Mill Lane", "Harbour Road", "Orchard Street", "Station Square", "Chapel Hill", "Meadow View")

RACES = (
    ("2106-3", "White"),
    ("2054-5", "Black or African American"),
    ("2028-9", "Asian"),
    ("2131-1", "Other Race"),
)
MARITAL = (("M", "Married"), ("S", "Never Married"), ("D", "Divorced"), ("W", "Widowed"))
SMOKING = (("266919005", "Never smoked tobacco"), ("8517006", "Ex-smoker"), ("77176002", "Smoker"))
CLASSES = (("AMB", "ambulatory"), ("EMER", "emergency"), ("IMP", "inpatient encounter"), ("VR", "virtual"))
ENCOUNTERS = (("185345009", "Encounter for symptom"), ("162673000", "General examination of patient"),
              ("390906007", "Follow-up encounter"), ("50849002", "Emergency room admission"))  # fmt: skip
CONDITIONS = (
    ("38341003", "I10", "Hypertensive disorder"), ("44054006", "E11.9", "Diabetes mellitus type 2"),
    ("195967001", "J45.909", "Asthma"), ("55822004", "E78.5", "Hyperlipidemia"),
    ("444814009", "J01.90", "Viral sinusitis"), ("10509002", "J20.9", "Acute bronchitis"),
)  # fmt: skip

LOINC = "http://loinc.org"
SNOMED = "http://snomed.info/sct"
UCUM = "http://unitsofmeasure.org"
ICD_10 = "http://hl7.org/fhir/sid/icd-10-cm"
V3 = "http://terminology.hl7.org/CodeSystem/v3-"
TERMINOLOGY = "http://terminology.hl7.org/CodeSystem/"
US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"


@dataclass(frozen=True, slots=True)
class Measure:
    """One kind of observation with a number: how it is coded, its unit, and the range its values are drawn from."""

    code: str
    display: str
    unit: str
    low: float
    high: float
    places: int
    category: str = "vital-signs"

    def at(self, share: float) -> Decimal:
        """The value at a share of the range, from 0 to 1, with all its decimal places: trailing zeros included."""
        scale = 10**self.places
        return Decimal(round((self.low + (self.high - self.low) * share) * scale)).scaleb(-self.places)


SYSTOLIC = Measure("8480-6", "Systolic blood pressure", "mm[Hg]", 95, 185, 0)
MEASURES = (
    SYSTOLIC,  # some measure it alone
    Measure("8302-2", "Body height", "cm", 148, 198, 1),
    Measure("29463-7", "Body weight", "kg", 45, 125, 2),
    Measure("39156-5", "Body mass index (BMI) [Ratio]", "kg/m2", 17, 39, 2),
    Measure("8867-4", "Heart rate", "/min", 50, 110, 0),
    Measure("8310-5", "Body temperature", "Cel", 35.8, 39.4, 1),
    Measure("2708-6", "Oxygen saturation in Arterial blood", "%", 88, 100, 1),
    Measure("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood", "%", 4.5, 11, 2, "laboratory"),
    Measure("2339-0", "Glucose [Mass/volume] in Blood", "mg/dL", 65, 240, 0, "laboratory"),
    Measure("38483-4", "Creatinine [Mass/volume] in Blood", "mg/dL", 0.5, 3.2, 2, "laboratory"),
)
DIASTOLIC = Measure("8462-4", "Diastolic blood pressure", "mm[Hg]", 55, 115, 0)
