"""Release: a folder that serves by itself, named by its digest, signed, with a bill of materials.

    release_store              publish, verify; never changed afterwards
    signing                    OpenSSF model-signing, offline
    sbom                       CycloneDX: packages, model, data
    source_closure, locked_requirements        the sources and the packages that serving needs

What answers requests is fettle/serving, which travels inside each release.
"""
