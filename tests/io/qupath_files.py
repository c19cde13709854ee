"""GeoJSON as QuPath writes it, of an image of 400 rows and 500 columns."""

from __future__ import annotations

DETECTION = """{
  "type": "FeatureCollection",
  "features": [
    {
      "type": "Feature",
      "id": "8f9b7c1e-4a55-4f0e-9d0b-0d7d7c1a8f11",
      "geometry": {
        "type": "Polygon",
        "coordinates": [
          [
            [110.5, 60],
            [120.25, 64.75],
            [121, 75.5],
            [109.13, 77.01],
            [104, 68.9],
            [110.5, 60]
          ]
        ]
      },
      "properties": {
        "objectType": "detection",
        "classification": {
          "name": "Tumor",
          "color": [200, 0, 0]
        },
        "measurements": {
          "Area µm^2": 12.1875,
          "Detection probability": 0.87109375,
          "Solidity": NaN
        }
      }
    }
  ]
}
"""
"""QuPath 0.4 and 0.5, pretty-printed."""

CELL = """{"type":"FeatureCollection","features":[{"type":"Feature","id":"0b3fd2c5-92e5-4ff4-8b11-61a2d1d63c55",
"geometry":{"type":"Polygon","coordinates":[[[200, 200], [240, 200], [240, 240], [200, 240], [200, 200]]]},
"nucleusGeometry":{"type":"Polygon","coordinates":[[[210, 212], [225, 212], [225, 230], [210, 230], [210, 212]]]},
"properties":{"objectType":"cell","classification":{"names":["Tumor","Positive"],"color":[250, 62, 62]},
"isLocked":true,"measurements":{"Nucleus: Area":270.0,"Cell: Area":1600.0}}}]}"""
"""A cell of cell detection, with a derived class."""

HIERARCHY = """{"type":"FeatureCollection","features":[{"type":"Feature","id":"10a0b0c0-0000-4000-8000-000000000001",
"geometry":{"type":"Polygon","coordinates":[[[0, 0], [500, 0], [500, 400], [0, 400], [0, 0]]]},
"properties":{"objectType":"tmaCore","name":"A-1","isMissing":false,"childObjects":[
{"type":"Feature","id":"10a0b0c0-0000-4000-8000-000000000002",
"geometry":{"type":"Polygon","coordinates":[[[10, 10], [480, 10], [480, 390], [10, 390], [10, 10]]]},
"properties":{"objectType":"annotation","name":"Tissue","color":[255, 255, 0],"childObjects":[
{"type":"Feature","id":"10a0b0c0-0000-4000-8000-000000000003",
"geometry":{"type":"MultiPolygon","coordinates":[
[[[50, 50], [60, 50], [60, 60], [50, 60], [50, 50]], [[53, 53], [53, 56], [56, 56], [56, 53], [53, 53]]],
[[[62, 50], [66, 50], [66, 60], [62, 60], [62, 50]]]]},
"properties":{"objectType":"detection","classification":{"name":"Stroma","color":[150, 200, 150]}}},
{"type":"Feature","id":"10a0b0c0-0000-4000-8000-000000000004",
"geometry":{"type":"Polygon","coordinates":[[[80, 80], [90, 80], [90, 90], [80, 90], [80, 80]]]},
"properties":{"objectType":"tile"}}]}}]}},
{"type":"Feature","id":"10a0b0c0-0000-4000-8000-000000000005",
"geometry":{"type":"LineString","coordinates":[[1, 1], [9, 9]]},"properties":{"objectType":"annotation"}}]}"""
"""A TMA core that holds an annotation that holds a detection with a hole and a second part, and a tile."""

POINTS = """{"type":"FeatureCollection","features":[{"type":"Feature","id":"20a0b0c0-0000-4000-8000-000000000001",
"geometry":{"type":"MultiPoint","coordinates":[[10.5, 20.5], [33.33, 44.44]]},
"properties":{"objectType":"annotation","classification":{"name":"Immune cells","color":[160, 90, 160]}}},
{"type":"Feature","id":"20a0b0c0-0000-4000-8000-000000000002","geometry":{"type":"Point","coordinates":[499.99, 0]},
"properties":{"objectType":"annotation"}}]}"""
"""Of the points tool."""

OLD = """[{"type":"Feature","id":"PathDetectionObject",
"geometry":{"type":"Polygon","coordinates":[[[10, 10], [20, 10], [20, 20], [10, 20], [10, 10]]]},
"properties":{"classification":{"name":"Tumor","colorRGB":-3670016},"isLocked":false,
"measurements":[{"name":"NucSeg id","value":12.0},{"name":"Area","value":100.0}]}},
{"type":"Feature","id":"PathAnnotationObject",
"geometry":{"type":"Polygon","coordinates":[[[30, 10], [40, 10], [40, 20], [30, 20], [30, 10]]]},
"properties":{"classification":{"parentClass":{"name":"Tumor","colorRGB":-3670016},"name":"Negative",
"colorRGB":-9408287},"isLocked":false}},
{"type":"Feature","id":"TMACoreObject",
"geometry":{"type":"Polygon","coordinates":[[[0, 0], [90, 0], [90, 90], [0, 90], [0, 0]]]},
"properties":{"name":"A-1","isMissing":true}}]"""
"""QuPath 0.2 and 0.3."""
