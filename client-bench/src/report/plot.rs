//! Line plots as SVG. Colours are the page's: a plot only names which of them.

use super::page::escape;
use std::fmt::Write as _;

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 34.0;
/// Colours that the page has.
const COLOURS: usize = 8;

/// Some lines over each other.
pub struct Plot {
    pub title: &'static str,
    /// What stands along the axes.
    pub x: &'static str,
    pub y: &'static str,
    pub scale: Scale,
    pub lines: Vec<Line>,
}

pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// How the axes are divided.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    Linear,
    /// The upright one by powers of ten.
    Logarithmic,
    /// That too, and the level one by nines: x is 1 for 90 %, 2 for 99 %.
    Nines,
}

/// The part of the plane that is shown.
struct View {
    x: (f64, f64),
    y: (f64, f64),
}

impl Plot {
    /// Appends the plot; nothing if there is nothing to show.
    pub fn draw(&self, html: &mut String) {
        let shown = self.shown();
        let Some(view) = View::of(&shown, self.scale) else { return };
        // Writing to a String cannot fail.
        let _ = write!(
            html,
            "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{}\">",
            escape(self.title),
            escape(self.title)
        );
        self.axes(&view, html);
        for ((_, points), colour) in shown.iter().zip(0..) {
            let _ = write!(html, "<polyline class=\"line k{}\" points=\"", colour % COLOURS);
            for point in points {
                let (x, y) = view.place(*point);
                let _ = write!(html, "{x:.1},{y:.1} ");
            }
            html.push_str("\"/>");
        }
        html.push_str("</svg><div class=\"legend\">");
        for ((name, _), colour) in shown.iter().zip(0..) {
            let (colour, name) = (colour % COLOURS, escape(name));
            let _ = write!(html, "<span><i class=\"k{colour}\"></i>{name}</span>");
        }
        html.push_str("</div></figure>");
    }

    /// The lines that have points, in the units of the axes.
    fn shown(&self) -> Vec<(&str, Vec<(f64, f64)>)> {
        let logarithmic = self.scale != Scale::Linear;
        let lines = self.lines.iter().filter(|line| !line.points.is_empty());
        lines
            .map(|line| {
                let points = line.points.iter().filter(|(_, y)| !logarithmic || *y > 0.0);
                let points = points.map(|(x, y)| (*x, if logarithmic { y.log10() } else { *y }));
                (line.name.as_str(), points.collect::<Vec<_>>())
            })
            .filter(|(_, points)| !points.is_empty())
            .collect()
    }

    fn axes(&self, view: &View, html: &mut String) {
        let linear = self.scale == Scale::Linear;
        for value in ticks(view.y, !linear) {
            let (_, y) = view.place((view.x.0, value));
            let label = number(if linear { value } else { 10f64.powf(value) });
            let _ = write!(
                html,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0
            );
        }
        let nines = self.scale == Scale::Nines;
        for value in ticks(view.x, nines) {
            let (x, _) = view.place((value, view.y.0));
            let label = if nines { percent(value) } else { number(value) };
            let _ = write!(
                html,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                HEIGHT - BOTTOM + 15.0
            );
        }
        let _ = write!(
            html,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <text x=\"4\" y=\"10\">{}</text>",
            WIDTH - RIGHT,
            HEIGHT - 4.0,
            escape(self.x),
            escape(self.y)
        );
    }
}

impl View {
    /// All of the points; none if there are none.
    fn of(lines: &[(&str, Vec<(f64, f64)>)], scale: Scale) -> Option<View> {
        let points = || lines.iter().flat_map(|(_, points)| points);
        let span = |of: fn(&(f64, f64)) -> f64| {
            let low = points().map(of).fold(f64::INFINITY, f64::min);
            let high = points().map(of).fold(f64::NEG_INFINITY, f64::max);
            (low, high)
        };
        points().next()?;
        let (x, y) = (span(|point| point.0), span(|point| point.1));
        let y = match scale {
            Scale::Linear => (0.0, if y.1 > 0.0 { 1.05 * y.1 } else { 1.0 }),
            Scale::Logarithmic | Scale::Nines => (y.0.floor(), y.1.ceil().max(y.0.floor() + 1.0)),
        };
        Some(View { x: (x.0.min(0.0), if x.1 > 0.0 { x.1 } else { 1.0 }), y })
    }

    fn place(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let part = |value: f64, (low, high): (f64, f64)| (value - low) / (high - low);
        (
            LEFT + part(x, self.x) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - part(y, self.y) * (HEIGHT - TOP - BOTTOM),
        )
    }
}

/// Some round values within a span; whole ones if `whole`.
fn ticks((low, high): (f64, f64), whole: bool) -> Vec<f64> {
    let rough = (high - low) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let step = step.into_iter().find(|step| *step >= rough).unwrap_or(rough);
    let step = if whole { step.ceil().max(1.0) } else { step };
    let first = (low / step).ceil() as i64;
    (first..).map(|count| count as f64 * step).take_while(|value| *value <= high).collect()
}

fn number(value: f64) -> String {
    let size = value.abs();
    match size {
        1e6.. => format!("{}M", short(value / 1e6)),
        1e3.. => format!("{}k", short(value / 1e3)),
        // Powers of ten, on an axis of them.
        _ if size > 0.0 && size < 1e-3 => format!("{value:e}"),
        _ => short(value),
    }
}

/// At most three places, and none that say nothing.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn percent(nines: f64) -> String {
    let part = 100.0 * (1.0 - 10f64.powf(-nines));
    format!("{} %", short(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_its_lines_and_stays_inside() {
        let line = |name: &str, points: Vec<(f64, f64)>| Line { name: name.into(), points };
        let plot = Plot {
            title: "a < b",
            x: "s",
            y: "ms",
            scale: Scale::Logarithmic,
            lines: vec![
                line("one", vec![(0.0, 0.5), (1.0, 700.0)]),
                line("none", vec![]),
                line("zero cannot be shown", vec![(0.0, 0.0)]),
            ],
        };
        let mut html = String::new();
        plot.draw(&mut html);
        assert_eq!(html.matches("<polyline").count(), 1);
        assert!(html.contains("a &lt; b"));
        // A swatch and its name are one.
        assert!(html.contains("<div class=\"legend\"><span><i class=\"k0\"></i>one</span></div>"));
        let points = html.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        for point in points.split_whitespace() {
            let (x, y) = point.split_once(',').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=HEIGHT - BOTTOM).contains(&y));
        }
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks((0.0, 10.0), false), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks((-1.0, 3.0), true), [-1.0, 0.0, 1.0, 2.0, 3.0]);
        assert_eq!(percent(3.0), "99.9 %");
        assert_eq!(number(12_500.0), "12.5k");
        assert_eq!(number(1e-4), "1e-4");
    }
}
