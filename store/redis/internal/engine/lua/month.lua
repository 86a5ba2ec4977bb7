-- The first day of the civil month that contains a day; proleptic Gregorian. The calendar
-- repeats every 400 years of 146097 days; years are counted from March, so that the leap day
-- comes last. Source: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms".
local function month(day)
  local z = day + 719468 -- days since 0000-03-01
  local of_era = z - floor(z / 146097) * 146097
  local year = floor((of_era - floor(of_era / 1460) + floor(of_era / 36524) - floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + floor(year / 4) - floor(year / 100))
  local m = floor((5 * of_year + 2) / 153)
  return day - (of_year - floor((153 * m + 2) / 5))
end
