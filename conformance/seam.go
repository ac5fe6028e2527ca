package conformance

var seamCases = []testCase{}
