from cbs.trials import Search, Trial


def test_a_search_in_words():
    trials = [Trial(0.5, 0.5, 0.01, None, True, True, 1.25), Trial(0.7, 0.7, 0.2, 0.1, False, False, 0.5)]
    assert Search("test", "done", trials).seconds == 1.75
    assert Search("test", "done", trials).line == "2 trials on test data in 1.8 s: done"
