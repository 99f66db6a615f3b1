// Leads from a finding to its picture: sets the stretch of time, the unit and the gate that it is
// about, frames the stretch, and scrolls to the picture.
function show(target) {
    const models = [...Bokeh.documents[0].all_models]
    const named = (name) => models.filter((model) => model.name == name)
    for (const choice of named(`unit-${target.block}`)) { choice.value = target.unit ?? choice.value }
    for (const choice of named(`gate-${target.block}`)) {
        if (choice.options.some(([key]) => key == target.key)) { choice.value = target.key }
    }
    for (const model of models) {
        if (model.tags.includes("stretch")) { model.visible = false }
    }
    for (const range of named(target.range)) {
        const [start, end] = range.bounds, [first, last] = target.stretch ?? range.bounds
        const width = Math.min(end - start, Math.max(2 * (last - first), target.least))
        const from = Math.min(Math.max((first + last - width) / 2, start), end - width)
        range.setv({start: from, end: from + width})
    }
    if (target.stretch) {
        const [left, right] = target.stretch
        for (const box of named(`stretch-${target.block}`)) { box.setv({left, right, visible: true}) }
    }
    const views = [...Bokeh.index.all_views()]
    const picture = views.find(({model}) => model.name == target.picture)
    const place = picture?.el ?? document.getElementById(`block${target.block}`)
    place.scrollIntoView({block: "center"})
}
document.addEventListener("click", ({target}) => {
    const button = target.closest("[data-show]")
    if (button) { show(JSON.parse(button.dataset.show)) }
})
