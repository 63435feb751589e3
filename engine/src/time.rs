//! Instants as text.

pub const NEVER: i64 = 1 << 62;
pub const LAST_INSTANT: i64 = 253_402_300_799_999;
pub const DAY: i64 = 86_400_000;

/// Year, month and day of a count of days since 1970 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[inline]
fn digits(out: &mut [u8], value: i64) {
    let mut left = value;
    for place in out.iter_mut().rev() {
        *place = b'0' + (left % 10) as u8;
        left /= 10;
    }
}

/// `yyyy-mm-dd`.
pub fn day_text(instant: i64) -> [u8; 10] {
    let (year, month, day) = civil(instant.div_euclid(DAY));
    let mut text = *b"0000-00-00";
    digits(&mut text[0..4], year);
    digits(&mut text[5..7], month);
    digits(&mut text[8..10], day);
    text
}

/// RFC 3339, UTC, three decimals, `Z`.
pub fn instant_text(instant: i64) -> [u8; 24] {
    let mut text = *b"0000-00-00T00:00:00.000Z";
    text[0..10].copy_from_slice(&day_text(instant));
    let rest = instant.rem_euclid(DAY);
    digits(&mut text[11..13], rest / 3_600_000);
    digits(&mut text[14..16], rest / 60_000 % 60);
    digits(&mut text[17..19], rest / 1_000 % 60);
    digits(&mut text[20..23], rest % 1_000);
    text
}
