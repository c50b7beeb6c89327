// The rival in Go: google/btree, degree 16, a Clone per write, as Kubernetes' watch cache uses it.
//
// It answers the same requests as worker.py, one JSON object a line on stdin and stdout, and does its
// own timing. An item is a pointer to an element, and every write stores a new element: the elements
// are made before the clock starts, as the values of the Python rivals are.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/google/btree"
)

const degree = 16 // apiserver's storage/cacher/store: btreeDegree

type element struct {
	key   string
	value []byte
}

type tree = btree.BTreeG[*element]

func less(a, b *element) bool { return a.key < b.key }

// The fields of worker.py's requests. Keys are indices into the file of keys that Load read.
type request struct {
	Do     string  `json:"do"`
	File   string  `json:"file"`
	N      int     `json:"n"`
	Keys   []int   `json:"keys"`
	Stamp  int     `json:"stamp"`
	Budget float64 `json:"budget_s"`
	Limit  int     `json:"limit"`
	Window int     `json:"window"`
	Apart  int     `json:"apart"`
}

type reply struct {
	Ops       int     `json:"ops"`
	Seconds   float64 `json:"seconds"`
	LiveBytes float64 `json:"live_bytes"`
	RssBytes  float64 `json:"rss_bytes"`
	Answer    int     `json:"answer"`
	Version   string  `json:"version"`
	Error     string  `json:"error,omitempty"`
}

type driver struct {
	keys    []string
	loaded  int
	current *tree
	past    *tree
	kept    []*tree
	pairs   map[int][2]*tree
}

// timed runs op(from, to) over ever larger pieces of n operations until the budget is spent.
func timed(n int, budget float64, op func(from, to int)) reply {
	runtime.GC()
	var spent time.Duration
	done, piece := 0, 1
	for done < n && spent.Seconds() < budget {
		to := min(n, done+piece)
		began := time.Now()
		op(done, to)
		spent += time.Since(began)
		done, piece = to, piece*2
	}
	return reply{Ops: done, Seconds: spent.Seconds()}
}

func (d *driver) elements(keys []int, stamp int) []*element {
	made := make([]*element, len(keys))
	for i, k := range keys {
		made[i] = &element{d.keys[k], fmt.Appendf(nil, "%016d", stamp+i)}
	}
	return made
}

func (d *driver) load(r request) reply {
	data, err := os.ReadFile(r.File)
	if err != nil {
		return reply{Error: err.Error()}
	}
	d.keys = strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	d.loaded, d.pairs = r.N, map[int][2]*tree{}
	order := make([]int, r.N)
	for i := range order {
		order[i] = i
	}
	made := d.elements(order, 0)
	d.current = btree.NewG(degree, less)
	out := timed(1, 1e9, func(_, _ int) {
		for _, e := range made {
			d.current.ReplaceOrInsert(e)
		}
	})
	out.Ops = r.N
	d.past = d.current.Clone()
	return out
}

func (d *driver) write(r request, change func(e *element)) reply {
	made := d.elements(r.Keys, r.Stamp)
	d.kept = make([]*tree, 0, 1024)
	out := timed(len(made), r.Budget, func(from, to int) {
		for _, e := range made[from:to] {
			change(e)
			d.kept = append(d.kept, d.current.Clone())
		}
	})
	d.kept = nil
	return out
}

func (d *driver) put(e *element)    { d.current.ReplaceOrInsert(e) }
func (d *driver) remove(e *element) { d.current.Delete(e) }

// slide is put with a full window: with each snapshot taken, the oldest is dropped.
func (d *driver) slide(r request) reply {
	made, ring := d.elements(r.Keys, r.Stamp), make([]*tree, r.Window)
	for i := range ring {
		ring[i] = d.current.Clone()
	}
	return timed(len(made), r.Budget, func(from, to int) {
		for i := from; i < to; i++ {
			d.current.ReplaceOrInsert(made[i])
			ring[i%len(ring)] = d.current.Clone()
		}
	})
}

func (d *driver) get(r request) reply {
	probes := make([]*element, len(r.Keys))
	for i, k := range r.Keys {
		probes[i] = &element{key: d.keys[k]}
	}
	found := 0
	out := timed(len(probes), r.Budget, func(from, to int) {
		for _, p := range probes[from:to] {
			if _, ok := d.past.Get(p); ok {
				found++
			}
		}
	})
	out.Answer = found
	return out
}

func (d *driver) page(r request) reply {
	read := 0
	out := timed(len(r.Keys), r.Budget, func(from, to int) {
		for _, k := range r.Keys[from:to] {
			page := make([]*element, 0, r.Limit)
			d.past.AscendGreaterOrEqual(&element{key: d.keys[k]}, func(e *element) bool {
				page = append(page, e)
				return len(page) < r.Limit
			})
			read += len(page)
		}
	})
	out.Answer = read
	return out
}

func (d *driver) scan(r request) reply {
	read := 0
	out := timed(r.N, r.Budget, func(from, to int) {
		for range to - from {
			d.past.Ascend(func(*element) bool { read++; return true })
		}
	})
	out.Answer = read
	return out
}

// count has no faster way: google/btree keeps no counts.
func (d *driver) count(r request) reply {
	counted := 0
	out := timed(len(r.Keys)/2, r.Budget, func(from, to int) {
		for i := from; i < to; i++ {
			a, b := &element{key: d.keys[r.Keys[2*i]]}, &element{key: d.keys[r.Keys[2*i+1]]}
			d.past.AscendRange(a, b, func(*element) bool { counted++; return true })
		}
	})
	out.Answer = counted
	return out
}

func (d *driver) ascend(t *tree) []*element {
	all := make([]*element, 0, t.Len())
	t.Ascend(func(e *element) bool { all = append(all, e); return true })
	return all
}

// diff has no faster way either: both trees are read and merged.
func (d *driver) diff(r request) reply {
	pair, ok := d.pairs[r.Apart]
	if !ok {
		pair[0] = d.current.Clone()
		for _, e := range d.elements(r.Keys, r.Stamp) {
			d.put(e)
		}
		pair[1] = d.current.Clone()
		d.pairs[r.Apart] = pair
	}
	differ := 0
	out := timed(r.N, r.Budget, func(from, to int) {
		for range to - from {
			differ += differences(d.ascend(pair[0]), d.ascend(pair[1]))
		}
	})
	out.Answer = differ / out.Ops
	return out
}

func differences(old, new []*element) int {
	differ, i, j := 0, 0, 0
	for i < len(old) && j < len(new) {
		switch {
		case old[i] == new[j]:
			i, j = i+1, j+1
		case old[i].key < new[j].key:
			differ, i = differ+1, i+1
		case old[i].key > new[j].key:
			differ, j = differ+1, j+1
		default:
			if !slices.Equal(old[i].value, new[j].value) {
				differ++
			}
			i, j = i+1, j+1
		}
	}
	return differ + len(old) - i + len(new) - j
}

func memory() (live, rss float64) {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	var size, resident float64
	if data, err := os.ReadFile("/proc/self/statm"); err == nil {
		fmt.Sscan(string(data), &size, &resident)
	}
	return float64(m.HeapAlloc), resident * float64(os.Getpagesize())
}

// retained gives the bytes of one snapshot in a window: of the live heap after a collection.
func (d *driver) retained(r request) reply {
	made := d.elements(r.Keys, r.Stamp)
	d.kept = make([]*tree, 0, len(made))
	live, rss := memory()
	out := timed(len(made), r.Budget, func(from, to int) {
		for _, e := range made[from:to] {
			d.put(e)
			d.kept = append(d.kept, d.current.Clone())
		}
	})
	liveAfter, rssAfter := memory()
	out.LiveBytes = (liveAfter - live) / float64(out.Ops)
	out.RssBytes = (rssAfter - rss) / float64(out.Ops)
	runtime.KeepAlive(made)
	d.kept = nil
	return out
}

func (d *driver) answer(r request) reply {
	switch r.Do {
	case "hello":
		return reply{Version: runtime.Version()}
	case "load":
		return d.load(r)
	case "put":
		return d.write(r, d.put)
	case "delete":
		return d.write(r, d.remove)
	case "slide":
		return d.slide(r)
	case "get":
		return d.get(r)
	case "page":
		return d.page(r)
	case "scan":
		return d.scan(r)
	case "count":
		return d.count(r)
	case "diff":
		return d.diff(r)
	case "retained":
		return d.retained(r)
	}
	return reply{Error: "unknown request " + r.Do}
}

func main() {
	in, out := bufio.NewReaderSize(os.Stdin, 1<<20), json.NewEncoder(os.Stdout)
	var d driver
	for decoder := json.NewDecoder(in); ; {
		var r request
		if decoder.Decode(&r) != nil {
			return
		}
		if err := out.Encode(d.answer(r)); err != nil {
			return
		}
	}
}
