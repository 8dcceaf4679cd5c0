package reassembly

import "slices"

// pageMost is how many chunks a page has at most. To put one among others moves those of its
// page only: a peer may cut what it sends into as many chunks as there are bytes, and send
// them in whichever order.
const pageMost = 256

// place is where a chunk is, or would be: its page, 0 for the stream's own table and then
// pages in their order from 1, and its number there.
type place struct{ page, i int }

// pages are tables of chunks, none of them empty, each behind the one before.
type pages [][]chunk

// searchIn returns the first chunk of a table from one on that ends beyond off.
func searchIn(table []chunk, lo int, off uint64) int {
	hi := len(table)
	for lo < hi {
		if mid := (lo + hi) / 2; table[mid].end() > off {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

// search returns the place of the first chunk that ends beyond off; behind the last one if
// there is none.
func (p pages) search(off uint64) place {
	k, _ := slices.BinarySearchFunc(p, off, func(page []chunk, off uint64) int {
		if page[len(page)-1].end() > off {
			return 1
		}
		return -1
	})
	if k == len(p) {
		return place{k, len(p[k-1])}
	}
	return place{k + 1, searchIn(p[k], 0, off)}
}

func (p pages) look(at *place) (chunk, bool) {
	if at.i == len(p[at.page-1]) {
		if at.page == len(p) {
			return chunk{}, false
		}
		*at = place{at.page + 1, 0}
	}
	return p[at.page-1][at.i], true
}

func (p *pages) place(at place, c chunk) place {
	k := at.page - 1
	page := slices.Insert((*p)[k], at.i, c)
	if (*p)[k] = page; len(page) <= pageMost {
		return at
	}
	from := cutAt(at.i, len(page))
	left := p.split(k+1, page, from) // changes *p
	(*p)[k] = left
	if at.i >= from {
		return place{at.page + 1, at.i - from}
	}
	return at
}

// cutAt is where a table of n chunks is cut in two that has just got number i: in the middle,
// but where they come in order.
func cutAt(i, n int) int {
	if i == n-1 {
		return i
	}
	return n / 2
}

// split makes page k of what a table has from a number on, and returns the rest.
func (p *pages) split(k int, table []chunk, from int) []chunk {
	*p = slices.Insert(*p, k, slices.Clone(table[from:]))
	clear(table[from:])
	return table[:from]
}

// pop hands the first page over; it returns whether others are left.
func (p *pages) pop(to *[]chunk) bool {
	*to = (*p)[0]
	(*p)[0] = nil
	*p = (*p)[1:]
	return len(*p) > 0
}

func (p pages) last() uint64 {
	page := p[len(p)-1]
	return page[len(page)-1].end()
}

func (p pages) drop() {
	for _, page := range p {
		for i := range page {
			page[i].seg.Release()
		}
	}
}
