//! The decoder of events as Python's functions, for tests and measurements alone.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::event::{decode, field, Settings, Value};

type Decoded<'py> = (
    String,
    String,
    i64,
    Option<String>,
    Bound<'py, PyBytes>,
    Option<Bound<'py, PyBytes>>,
    Option<i64>,
    Option<Bound<'py, PyBytes>>,
    Option<Bound<'py, PyBytes>>,
);

/// Type, customer, time, id, fingerprint, order, amount, props, attributes; None for what Python has to decide.
#[pyfunction]
#[pyo3(signature = (data, currency, digits, latest=None))]
fn decode_event<'py>(
    py: Python<'py>,
    data: &[u8],
    currency: String,
    digits: u32,
    latest: Option<i64>,
) -> Option<Decoded<'py>> {
    let event = decode(data, &Settings { currency, digits }, latest)?;
    Some((
        event.kind.to_owned(),
        event.customer.to_owned(),
        event.time,
        event.name.map(str::to_owned),
        PyBytes::new(py, &event.fingerprint),
        event.order.map(|order| PyBytes::new(py, &order)),
        event.amount,
        event.props.map(|props| PyBytes::new(py, props)),
        event.attributes.map(|attributes| PyBytes::new(py, attributes)),
    ))
}

/// How many of the events are decoded.
#[pyfunction]
#[pyo3(signature = (events, currency, digits, latest=None))]
fn decode_many(events: Vec<Bound<'_, PyBytes>>, currency: String, digits: u32, latest: Option<i64>) -> usize {
    let settings = Settings { currency, digits };
    events.iter().filter(|data| std::hint::black_box(decode(data.as_bytes(), &settings, latest)).is_some()).count()
}

/// The kind (null, true, false, int, text, other) and the value, of an int or a text, of one of the props.
#[pyfunction]
fn props_field<'py>(py: Python<'py>, props: &[u8], name: &str) -> PyResult<Option<(&'static str, Bound<'py, PyAny>)>> {
    let none = py.None().into_bound(py);
    Ok(match field(props, name) {
        None => None,
        Some(Value::Null) => Some(("null", none)),
        Some(Value::True) => Some(("true", none)),
        Some(Value::False) => Some(("false", none)),
        Some(Value::Int(number)) => Some(("int", number.into_pyobject(py)?.into_any())),
        Some(Value::Text(text)) => Some(("text", text.into_pyobject(py)?.into_any())),
        Some(Value::Other) => Some(("other", none)),
    })
}

/// Adds the functions to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(decode_event, module)?)?;
    module.add_function(wrap_pyfunction!(decode_many, module)?)?;
    module.add_function(wrap_pyfunction!(props_field, module)?)
}
