"""The teacher network, its encoders, and the loading of public encoder weights."""

from train.teacher.teacher import ENCODERS, Teacher, TeacherConfig, build_teacher

__all__ = ["ENCODERS", "Teacher", "TeacherConfig", "build_teacher"]
