"""Data: where images come from, how they are divided, and which of them are fit to learn from.

sources/    one file a data source (plug-ins: `ingest.source`)
checks/     one file a data check (plug-ins: every file runs)

image_listing, image_inspection, splitting     from a folder or a CSV file to rows in splits
image_table                                    the table that `ingest` hands over
validation_runner, expectations                quarantine or refuse, by Great Expectations
choice_images                                  training images held out to choose by
split_reader, pixel_store                      one split as arrays, for every later stage
bounded_thread_map                             images decoded in a few threads, few in flight
"""
