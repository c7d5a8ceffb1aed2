"""Who is in which set: patient splits, the pretraining pool, tasks' manifests."""
