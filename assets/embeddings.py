"""The images of the pool as frozen encoders represent them (`pipeline.embeddings`): the table and the page of maps."""

import dagster as dg
import pyarrow as pa

from assets.catalog import EVALUATION
from assets.failures import HOOKS
from assets.pretraining import encoder_name
from assets.step import Context, Materializations, step
from assets.tables import size_and_columns
from pipeline import code_versions
from pipeline.files import digest
from pipeline.recipe import Recipe
from pipeline.tables import EMBEDDINGS
from resources.compute import POOL, Compute
from resources.store import StoreFolder
from resources.tracking import Tracking

VECTORS = "embeddings"


def embeddings_asset(recipe: Recipe) -> dg.AssetsDefinition:
    """`embeddings`, of all encoders of `recipe`."""
    settings = recipe.pretraining

    @dg.asset(
        hooks=HOOKS,
        pool=POOL,
        name=VECTORS,
        deps=[encoder_name(backbone, encoder) for backbone in settings.backbones for encoder in settings.encoders],
        description="One row per encoder and image of the pool (at most 2,000 images): the image's vector, and its "
        "position on the encoder's map. A private page shows the maps with thumbnails and nearest neighbours.",
        code_version=code_versions.EMBEDDINGS,
        group_name=EVALUATION,
        kinds={"torch", "parquet", "html"},
    )
    def embeddings(
        context: Context,
        store: StoreFolder,
        compute: Compute,
        tracking: Tracking,
        pretraining_pool: pa.Table,
        dicom_index: pa.Table,
        image_cache: pa.Table,
    ) -> Materializations:
        from pipeline.embeddings.page import MapInput, write_map_page
        from pipeline.embeddings.table import embed_recipe

        inputs = pretraining_pool, dicom_index, image_cache
        with step(context, store, tracking, recipe) as here:
            with here.holding(compute.training(here.log), *inputs) as (pool, index, images):
                rows = embed_recipe(recipe, here.store, pool, here.log)
                page = write_map_page(recipe, here.store, rows, MapInput(pool, index, images))
            yield here.made(
                VECTORS,
                digest(rows["fingerprint"].unique().to_pylist())[:16],
                {**size_and_columns(EMBEDDINGS, rows), "page of maps": dg.MetadataValue.path(page)},
            )

    return embeddings
