package lease

import "time"

// random is splitmix64 (Steele, Lea, Flood 2014): enough to spread bids, and
// the same for the same seed.
type random uint64

func (r *random) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// upTo is a duration from 0 to d inclusive.
func (r *random) upTo(d time.Duration) time.Duration {
	return time.Duration(r.next() % uint64(d+1))
}
