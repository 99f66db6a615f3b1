"""The sections of a layer in a report, a file for each.

A section is a function ``draw(view)`` that returns pictures and controls in the order in which
they are shown, or none if the layer has nothing for it. To add one, write a file here and put
its function into `everystate.views.page.SECTIONS`.
"""
