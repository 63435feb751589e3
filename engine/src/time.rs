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

/// Two digits.
#[inline]
fn pair(value: u32) -> [u8; 2] {
    [b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8]
}

/// `yyyy-mm-dd`.
pub fn day_text(instant: i64) -> [u8; 10] {
    let (year, month, day) = civil(instant.div_euclid(DAY));
    let (year, month, day) = (year as u32, month as u32, day as u32);
    let mut text = *b"0000-00-00";
    text[0..2].copy_from_slice(&pair(year / 100));
    text[2..4].copy_from_slice(&pair(year % 100));
    text[5..7].copy_from_slice(&pair(month));
    text[8..10].copy_from_slice(&pair(day));
    text
}

/// RFC 3339, UTC, three decimals, `Z`.
pub fn instant_text(instant: i64) -> [u8; 24] {
    let mut text = *b"0000-00-00T00:00:00.000Z";
    text[0..10].copy_from_slice(&day_text(instant));
    let rest = instant.rem_euclid(DAY) as u32;
    let (seconds, millis) = (rest / 1_000, rest % 1_000);
    text[11..13].copy_from_slice(&pair(seconds / 3_600));
    text[14..16].copy_from_slice(&pair(seconds / 60 % 60));
    text[17..19].copy_from_slice(&pair(seconds % 60));
    text[20] = b'0' + (millis / 100) as u8;
    text[21..23].copy_from_slice(&pair(millis % 100));
    text
}
