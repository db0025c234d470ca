"""Batch prediction: a release's answers to every image of a folder or table, without a server.

prediction_inputs   lists and reads the images: folders, files, Parquet or CSV tables
batch_prediction    hands them out in chunks to worker processes; resumes what was killed
worker_process      starts a worker, feeds it and ends it
release_worker      the worker: runs the code that the release itself carries
prediction_table    writes the answers: Parquet, CSV or JSON lines
"""
