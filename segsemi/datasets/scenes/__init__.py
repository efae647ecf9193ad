"""Generated street scenes with labels exact to the pixel: the embedded data set.

A scene is a street in world metres (x right, y up, z ahead of the camera), seen by a pinhole camera and painted from
far to near. Each mask is used for the image and for the label alike. Eighty towns, eight kinds of weather, many car types
and overlapping colours make a handful of images a poor sample of the whole.
"""

from segsemi.datasets.scenes.canvas import CLASSES
from segsemi.datasets.scenes.scene import scene, write

__all__ = ["CLASSES", "scene", "write"]
