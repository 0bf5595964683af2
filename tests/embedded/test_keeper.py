from embedded.keeper import next_pause


def test_pauses_double_up_to_half_a_minute():
    pauses = [next_pause(None, 0)]
    while len(pauses) < 7:
        pauses.append(next_pause(pauses[-1], 59))
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_a_program_that_was_up_for_a_minute_starts_anew():
    assert next_pause(30, 60) == 1
