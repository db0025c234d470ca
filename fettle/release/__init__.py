"""Release: a folder that serves by itself, named by its digest, signed, with a bill of materials.

    release_store              publish, verify; never changed afterwards
    signing                    OpenSSF model-signing, offline
    sbom                       CycloneDX: packages, model, data
    source_closure, locked_requirements        the sources and the packages that serving needs
    verdict_ledger, ledger_verification        how often the test images have judged
    released_run, release_gate                 its documents and its gate, made of its artefacts
    carried_evidence           manifests and answers in it, from which its figures are derived again
    release_verification, report_verification  that derivation
    release_comparison         two releases on the same test rows
    lineage_record, lineage_graph              what it was made of, and what it led to

What answers requests is fettle/serving, which travels inside each release.
"""
