import base64
import io

import numpy as np
from matplotlib.image import imread

from cbs.report.page.draw_masks import is_picture, picture, png
from cbs.report.page.style import KEPT, PRUNED


def test_pictures_are_read_back_by_another():
    mask = np.random.default_rng(0).random((5, 9)) < 0.5
    read = imread(io.BytesIO(base64.b64decode(png(picture(mask)).partition(",")[2])))
    pixels = np.rint(255 * read[..., :3]).astype(int)
    assert np.array_equal(pixels, np.where(mask[..., None], PRUNED, KEPT))


def test_rows_become_squares():
    mask = np.random.default_rng(1).random((5, 16)) < 0.5
    image = picture(mask, pictures=True)
    assert image.shape == (2 * 5 - 1, 3 * 5 - 1)
    for row in range(5):
        y, x = divmod(row, 3)
        assert np.array_equal(image[5 * y : 5 * y + 4, 5 * x : 5 * x + 4], mask[row].reshape(4, 4))
    assert (image[4] == 2).all()
    assert (image[5:, 10:] == 2).all()  # there is no sixth row


def test_which_inputs_are_pictures():
    assert is_picture(784, "mnist")
    assert not is_picture(64, "random-0.7")
    assert not is_picture(100, "digits")
