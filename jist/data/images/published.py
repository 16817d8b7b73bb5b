"""Scenes from the air and from orbit as their authors published them: names, classes, sources.

RESISC45: Cheng, Han, Lu, Remote Sensing Image Scene Classification: Benchmark and State of the Art
(2017). AID: Xia et al., AID: A Benchmark Data Set for Performance Evaluation of Aerial Scene
Classification (2017). EuroSAT: Helber et al., EuroSAT: A Novel Dataset and Deep Learning Benchmark
for Land Use and Land Cover Classification (2019). UC Merced: Yang, Newsam, Bag-of-Visual-Words and
Spatial Extensions for Land-Use Classification (2010).
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Published:
    """A data set as its authors published it.

    Attributes:
        name: what `load_dataset` calls it.
        images: how many it has.
        test: how many of them are for testing: as Table 1 of CPAL 2024 has it, else a fifth.
        source: where to get it.
        folder: what the authors call the directory of the classes.
        class_names: in the authors' spelling.
        suffixes: of its files, where that tells it from another of the same classes.
        depth: directories below the given one in which the classes are looked for.
        bands: names of the bands in its files, which do not say them.
    """

    name: str
    images: int
    test: int
    source: str
    folder: str
    class_names: tuple[str, ...]
    suffixes: tuple[str, ...] = ()
    depth: int = 3
    bands: tuple[str, ...] = ()


RESISC45 = Published(
    name="resisc45",
    images=31_500,
    test=4_500,
    source="https://1drv.ms/u/s!AmgKYzARBl5ca3HNaHIlzp_IXjs (NWPU-RESISC45.rar, 0.4 GB)",
    folder="NWPU-RESISC45",
    class_names=(
        *("airplane", "airport", "baseball_diamond", "basketball_court", "beach", "bridge"),
        *("chaparral", "church", "circular_farmland", "cloud", "commercial_area"),
        *("dense_residential", "desert", "forest", "freeway", "golf_course"),
        *("ground_track_field", "harbor", "industrial_area", "intersection", "island", "lake"),
        *("meadow", "medium_residential", "mobile_home_park", "mountain", "overpass", "palace"),
        *("parking_lot", "railway", "railway_station", "rectangular_farmland", "river"),
        *("roundabout", "runway", "sea_ice", "ship", "snowberg", "sparse_residential"),
        *("stadium", "storage_tank", "tennis_court", "terrace", "thermal_power_station"),
        "wetland",
    ),
)
AID = Published(
    name="aid",
    images=10_000,
    test=1_500,
    source="http://www.captain-whu.com/project/AID/ (AID.zip)",
    folder="AID",
    class_names=(
        *("Airport", "BareLand", "BaseballField", "Beach", "Bridge", "Center", "Church"),
        *("Commercial", "DenseResidential", "Desert", "Farmland", "Forest", "Industrial"),
        *("Meadow", "MediumResidential", "Mountain", "Park", "Parking", "Playground", "Pond"),
        *("Port", "RailwayStation", "Resort", "River", "School", "SparseResidential", "Square"),
        *("Stadium", "StorageTanks", "Viaduct"),
    ),
)
EUROSAT = Published(
    name="eurosat",
    images=27_000,
    test=5_400,
    source="https://zenodo.org/records/7711810 (EuroSAT_RGB.zip)",
    folder="EuroSAT_RGB",
    class_names=(
        *("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture"),
        *("PermanentCrop", "Residential", "River", "SeaLake"),
    ),
    suffixes=(".jpg",),
)
EUROSAT_MS = dataclasses.replace(
    EUROSAT,
    name="eurosat-ms",
    source="https://zenodo.org/records/7711810 (EuroSAT_MS.zip)",
    folder="EuroSAT_MS",
    suffixes=(".tif",),
    depth=6,  # of the first archive: ds/images/remote_sensing/otherDatasets/sentinel_2/tif
    bands=(
        *("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B9", "B10", "B11", "B12"),
        "B8A",
    ),
)
UCMERCED = Published(
    name="ucmerced",
    images=2_100,
    test=420,
    source="http://weegee.vision.ucmerced.edu/datasets/landuse.html (UCMerced_LandUse.zip)",
    folder="UCMerced_LandUse",
    class_names=(
        *("agricultural", "airplane", "baseballdiamond", "beach", "buildings", "chaparral"),
        *("denseresidential", "forest", "freeway", "golfcourse", "harbor", "intersection"),
        *("mediumresidential", "mobilehomepark", "overpass", "parkinglot", "river", "runway"),
        *("sparseresidential", "storagetanks", "tenniscourt"),
    ),
)
PUBLISHED = {of.name: of for of in (RESISC45, AID, EUROSAT, EUROSAT_MS, UCMERCED)}
