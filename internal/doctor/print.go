package doctor

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Print writes the report for people.
func (r *Report) Print(w io.Writer) {
	s := &r.Server
	fmt.Fprintf(w, "%s\n", r.URL)
	if s.Error != "" {
		fmt.Fprintf(w, "no Halley server: %s\n", s.Error)
	} else {
		fmt.Fprintf(w, "Halley %s, %s%s, an answer takes %v, heartbeat %v\n", s.Version, s.HTTP, prefixed(", ALPN ", s.ALPN), s.RTT, time.Duration(s.Heartbeat))
		if s.Via == "" {
			fmt.Fprintln(w, "on the way: nobody shows; the server may have been reached directly")
		} else {
			fmt.Fprintf(w, "on the way: %s\n", s.Via)
		}
		fmt.Fprintf(w, "publishing: %s\n", r.Publish)
		if s.Origin != "" {
			fmt.Fprintf(w, "pages of the origin: %s\n", s.Origin)
		}
		if s.ClockSkew != 0 {
			fmt.Fprintf(w, "clock: the server's is %v ahead of this one\n", time.Duration(s.ClockSkew))
		}
	}
	if len(r.Transports) > 0 {
		fmt.Fprintln(w)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "TRANSPORT\tVERDICT\tHTTP\tHEADERS\tOPEN\tMESSAGES\tLATENCY\tWORST\tHEARTBEAT\tEND")
		for _, x := range r.Transports {
			fmt.Fprintf(t, "%s\t%s\t%s\t%v\t%v\t%d/%d\t%v\t%v\t%s\t%s\n", x.Transport, x.Verdict, cmp.Or(x.HTTP, "-"),
				x.Headers, x.Open, x.Received, x.Messages, x.Latency, x.Worst, cmp.Or(x.Heartbeat, "-"), cmp.Or(x.End, "-"))
		}
		t.Flush()
		fmt.Fprintln(w)
		for _, x := range r.Transports {
			var more []string
			for _, m := range []string{x.Detail, prefixed("compressed by ", x.Compressed), prefixed("without ", strings.Join(x.Lost, " and "))} {
				if m != "" {
					more = append(more, m)
				}
			}
			if x.Via != s.Via && x.Via != "" {
				more = append(more, "carried by "+x.Via)
			}
			if len(more) > 0 {
				fmt.Fprintf(w, "%s: %s\n", x.Transport, strings.Join(more, "; "))
			}
		}
	}
	for _, a := range r.Advice {
		fmt.Fprintf(w, "-> %s\n", a)
	}
	switch {
	case r.Exit() == 2:
		fmt.Fprintln(w, "nothing works")
	case r.Exit() == 1:
		fmt.Fprintln(w, "only polling works")
	case !slices.ContainsFunc(r.Transports, func(x Result) bool { return x.Verdict != Works }):
		fmt.Fprintln(w, "everything works")
	}
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}
