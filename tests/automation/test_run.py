def test_x(two_rounds): pass
