"""Parts of configurations for networks so small that a test trains them in a moment."""

DATA = """
device = "cpu"
[data]
root = "{root}"
[data.sets.toy]
held_out = ["im_3"]
[crop]
size = 32
"""
TEACHER = """
[teach.teacher]
encoder = "conv"
[teach.teacher.layout]
angles = [0, 45, 90, 135]
[teach.teacher.conv]
widths = [4, 4, 6, 8]
blocks = [1, 1, 1, 1]
[teach.teacher.decoder]
widths = [4, 4, 6, 6, 8]
blocks = [1, 1, 1, 1]
head = 4
"""
STUDENT = """
widths = [4, 4, 4, 4]
blocks = [1, 1, 1, 1]
"""
