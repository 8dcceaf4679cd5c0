package places

// FairPart is how many times what is free one of several may have: alone three quarters of
// all, two each three sevenths. So one with a fault, or bad intentions, leaves others some.
const FairPart = 3

// Fair says whether one of several who share places may have one more, if it has own of them
// and free are free.
func Fair(own, free int) bool { return own < FairPart*free }
