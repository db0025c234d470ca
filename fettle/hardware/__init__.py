"""Hardware: where a model must run, what runs it there, and how it is measured.

targets/          one data record a hardware target (plug-ins: `targets`)
runtimes/         one file a toolchain (plug-ins: a target's `runtime`)

latency_measurement, peak_memory, energy_measurement       interleaved rounds; bytes; joules
operator_cost_table, operator_cost_fit, width_sweep        latency predicted before it is built
machine_fingerprint, machine_check, measurement_lock       one machine, one measurement at a time
kernel_profile, ort_profiler, openvino_profiler            where the time of a network goes
vnni_emulation                                             int8 on an x86 CPU without VNNI
"""
