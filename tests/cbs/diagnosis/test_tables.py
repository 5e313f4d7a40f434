from cbs.diagnosis.tables import text


def test_columns_are_set_out():
    assert text(["name", "n"], [["a", "10"], ["longer", "2"]]) == "name     n\na       10\nlonger   2"
