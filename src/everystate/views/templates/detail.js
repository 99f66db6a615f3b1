// Shows finer columns where the stretch of time shown is short enough for them. Runs whenever
// the stretch changes; one call a layer. The values lie in the page as text, and only those of
// the stretch are decoded.
const {block, names, heights, wanted, levels} = JSON.parse(manifest)
const all = (window.everystateDetail ??= new Map())
if (!all.has(block)) {
    const overview = {
        images: {...images.data}, columns: {...columns.data}, buckets: {...buckets.data},
        tags: buckets.tags, spans: glyphs.map(({glyph}) => [glyph.x, glyph.dw]), said: said.text,
    }
    all.set(block, {shown: "overview", overview, decoded: new Map()})
}
const state = all.get(block)

const first = (range.start - origin) / step, last = (range.end - origin) / step  // in steps
const fits = ({start, steps, size, each}) =>
    first >= start - 0.01 && last <= start + steps + 0.01 && (last - first) / size * each <= wanted
const level = levels.find(fits)
const part = level && ((at) => Math.floor((at - level.start) / level.size / level.chunk))
const from = level ? Math.max(0, part(first)) : 0
const to = level ? Math.min(level.chunks - 1, part(last - 1e-6)) : 0
const shown = level ? `${level.id}:${from}:${to}` : "overview"
if (shown == state.shown) { return }
state.shown = shown

function chosen(key) {
    const image = images.data[key][0], at = Number(choice.value), count = image.shape[1]
    return Array.from({length: count}, (_, k) => image[at * count + k])
}

function showChosen() {
    for (const key of choosable) { columns.data[key] = chosen(key) }
}

if (!level) {
    const {overview} = state
    glyphs.forEach(({glyph}, k) => { [glyph.x, glyph.dw] = overview.spans[k] })
    buckets.tags = overview.tags
    buckets.data = overview.buckets
    images.data = overview.images
    columns.data = {...overview.columns}
    showChosen()
    columns.change.emit()
    said.text = overview.said
    return
}

function bytes(text) { return Uint8Array.from(atob(text), (c) => c.charCodeAt(0)) }

function decode(k) {  // one piece of a level: its values by name, and the time of its buckets
    const id = `detail-${block}-${level.id}-${k}`
    if (!state.decoded.has(id)) {
        const [values, texts] = document.getElementById(id).textContent.trim().split("\n")
        const flat = new Float32Array(bytes(values).buffer)
        const {firsts, spans} = JSON.parse(new TextDecoder().decode(bytes(texts)))
        const count = spans.length, width = count * level.each
        let at = 0
        const take = (size) => flat.subarray(at, at += size)
        const rows = names.map((_, j) => take(heights[j] * width))
        const over = names.map(() => [take(count), take(count), take(count)])
        if (state.decoded.size > 12) { state.decoded.delete(state.decoded.keys().next().value) }
        state.decoded.set(id, {rows, over, firsts, spans, width})
    }
    return state.decoded.get(id)
}

const pieces = Array.from({length: to - from + 1}, (_, k) => decode(from + k))
const width = pieces.reduce((sum, piece) => sum + piece.width, 0)
const firsts = pieces.flatMap((piece) => piece.firsts), spans = pieces.flatMap((piece) => piece.spans)
const repeated = (list) => level.each == 1 ? list : list.flatMap((value) => [value, value])

const newImages = {}, newColumns = {}
names.forEach((name, j) => {
    const image = new Float32Array(heights[j] * width)
    let left = 0
    for (const piece of pieces) {
        for (let row = 0; row < heights[j]; row++) {
            const values = piece.rows[j].subarray(row * piece.width, (row + 1) * piece.width)
            image.set(values, row * width + left)
        }
        left += piece.width
    }
    const Image = state.overview.images[name][0].constructor  // an array that knows its shape
    newImages[name] = [new Image(image, [heights[j], width])]
    for (const [k, what] of ["mean", "low", "high"].entries()) {
        newColumns[name + what] = repeated(pieces.flatMap((piece) => [...piece.over[j][k]]))
    }
    for (let k = 0; `${name}feature${k}` in columns.data; k++) {
        newColumns[`${name}feature${k}`] = [...image.subarray(k * width, (k + 1) * width)]
    }
})
const left = origin + step * (level.start + from * level.chunk * level.size)
const column = step * level.size / level.each
for (const {glyph} of glyphs) {
    glyph.x = {value: left}
    glyph.dw = {value: column * width}
}
buckets.tags = [left, step * level.size]
buckets.data = {first: firsts, span: spans}
images.data = newImages
newColumns.x = Array.from({length: width}, (_, k) => left + (k + 0.5) * column)
newColumns.span = repeated(spans)
for (const key of choosable) { newColumns[key] = chosen(key) }
columns.data = newColumns
said.text = level.said
