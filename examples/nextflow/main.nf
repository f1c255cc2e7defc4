// A task a pair under Nextflow, each inside the image; what it leaves is published in results/PAIR/.
//
//     nextflow run examples/nextflow --manifest manifest.csv --image comir-batch.sif [--options '--ome-tiff'] [-profile slurm,gpu]
//
// comir-batch starts no jobs of its own here. A rejected pair is a result, its verdict.json says so; a pair in error has no
// transform, and its task fails. Paths of masks, landmarks and initial transforms must be absolute, and visible in the container;
// so must slides that consist of several files (MRXS), because a task sees only the files that it is given.

nextflow.enable.dsl = 2

def quoted(values) {
    values.collect { '"' + it.toString().replace('"', '""') + '"' }.join(',')
}

process REGISTER {
    tag "${row.pair_id}"
    container params.image
    cpus 4
    memory { 6.GB * task.cpus }
    publishDir "${params.out}/${row.pair_id}", mode: 'copy', saveAs: { it.tokenize('/').last() }

    input:
    tuple val(row), path(fixed, stageAs: 'fixed/*'), path(moving, stageAs: 'moving/*')

    output:
    tuple val(row), path("run/pairs/${row.pair_id}/transform.json"), emit: transform
    tuple val(row), path("run/pairs/${row.pair_id}/verdict.json"), emit: verdict
    path "run/pairs/${row.pair_id}/*"

    script:
    def cells = row + [fixed: fixed, moving: moving]
    """
    cat > pair.csv <<'END'
    ${quoted(cells.keySet())}
    ${quoted(cells.values())}
    END
    # 4 tells that the pair was rejected, or is in error and has no transform.
    comir-batch run pair.csv --out run --executor local --workers ${task.cpus} ${params.options} || [ \$? -eq 4 ]
    """
}

workflow {
    def manifest = file(params.manifest, checkIfExists: true)
    // Paths in a manifest are relative to it.
    def slide = { name -> name.startsWith('/') ? file(name, checkIfExists: true) : manifest.parent.resolve(name) }
    def pairs = Channel.fromPath(params.manifest)
        .splitCsv(header: true)
        .map { row -> tuple(row, slide(row.fixed), slide(row.moving)) }
    REGISTER(pairs)
}
