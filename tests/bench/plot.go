package main

import (
	"image/color"
	"math"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// plotRatios draws calls and programs as multiples of native: a bar each for runsc and moat's trap platform, on a logarithmic axis. Bars start at 1,
// native's own, and go to the left for what is faster.
func plotRatios(b *bench, file string) error {
	p := plot.New()
	p.Title.Text = "Time as a multiple of native (1 is native; logarithmic)"
	p.X.Tick.Marker = plot.TickerFunc(func(lo, hi float64) (t []plot.Tick) {
		for e := math.Floor(lo); e <= hi; e++ {
			t = append(t, plot.Tick{Value: e, Label: strconv.FormatFloat(math.Pow(10, e), 'g', -1, 64)})
		}
		return t
	})
	p.Add(plotter.NewGrid())
	var labels []string
	series := map[string]plotter.Values{}
	shown := []string{runsc, "moat trap"}
	for _, part := range []string{partPrograms, partCalls} {
		for _, n := range b.names(part) {
			c := b.all[part][n]
			nat := median(c[native])
			if nat == 0 || median(c[shown[0]]) == 0 || median(c[shown[1]]) == 0 {
				continue
			}
			labels = append(labels, n)
			for _, s := range shown {
				series[s] = append(series[s], math.Log10(median(c[s])/nat))
			}
		}
	}
	if len(labels) == 0 {
		return nil
	}
	const width = 5
	for i, s := range shown {
		bars, err := plotter.NewBarChart(series[s], vg.Points(width))
		if err != nil {
			return err
		}
		bars.Horizontal = true
		bars.Offset = vg.Points(float64(1-2*i) * width / 2)
		bars.LineStyle.Width = 0
		bars.Color = []color.Color{color.RGBA{0xc0, 0xc0, 0xc0, 0xff}, color.RGBA{0x1f, 0x77, 0xb4, 0xff}}[i]
		p.Add(bars)
		p.Legend.Add(s, bars)
	}
	p.NominalY(labels...)
	p.Legend.Top = true
	return p.Save(8*vg.Inch, vg.Length(len(labels))*vg.Points(14)+vg.Inch, file)
}
